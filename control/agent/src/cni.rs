//! The runtime side of CNI: what a container runtime does with a config list.
//!
//! Follows the CNI specification 1.1.0, sections 1 to 3, and libcni where the text is silent.

pub mod config;
pub mod exec;
#[cfg(test)]
mod tests;

pub use config::{Attachment, ConfigError, NetworkList, PortMapping};
pub use exec::{ExecError, Plugins};

/// Spec versions that this runtime speaks, oldest first. Before 0.3.0 results had another shape.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
