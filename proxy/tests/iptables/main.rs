//! The iptables data plane against the real programs and kernel, in namespaces of the tests' own, in both variants.

#![allow(clippy::unwrap_used)]

mod companion;
mod edits;
mod fake;
mod features;
mod kernel;
mod machine;
mod packets;
mod refusals;
mod split;
mod states;
mod strangers;
mod world;
