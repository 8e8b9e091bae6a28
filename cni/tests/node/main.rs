//! The built plugin, called as runtimes call it, on nodes that are network namespaces.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod capabilities;
mod cleanup;
mod conformance;
mod crash;
mod damage;
mod disk;
mod pods;
mod proofs;
mod support;
