//! The built daemon on two nodes in namespaces, joined by a wire, with pods of the plugin.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adversity;
mod changes;
mod converge;
mod families;
mod mesh;
mod pitfalls;
mod support;
