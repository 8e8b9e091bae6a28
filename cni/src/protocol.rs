//! The CNI protocol, versions 0.3.1 to 1.1.0, as values: nothing here reads the environment or a file.
//!
//! <https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md>

mod args;
mod config;
mod env;
mod error;
mod result;
mod version;

pub use args::Args;
pub use config::{Attachments, NetworkConfig, OwnerKey, conflist};
pub use env::{Invocation, Verb};
pub use error::{Code, Error};
pub use result::{AddResult, Interface, IpConfig, PreviousResult, RouteConfig};
pub use version::{Version, version_answer};
