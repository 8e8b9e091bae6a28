//! UDP clients that never stop sending, while Services change under them: real flows through the rules of iptables
//! mode, in namespaces of the tests' own, in both variants and families. conntrack(8) is the judge.

#![allow(clippy::unwrap_used)]

mod flows;
mod world;
