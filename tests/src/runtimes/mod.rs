//! Playing a container runtime, and a node for it: for tests of the plugin with what real runtimes send, and to measure it
//! beside the reference plugins.
//!
//! Reading order: [`list`] (pure) → [`libcni`] (the operations) → [`node`] (where they run) → [`attach()`] (to a lab).

mod attach;
pub mod libcni;
pub mod list;
pub mod node;

pub use attach::{attach, attach_addresses};
pub use libcni::{Attachment, Failure, Libcni};
pub use list::List;
pub use node::{Namespace, Node, Scratch};

/// Where Debian's package `containernetworking-plugins` has them.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";
