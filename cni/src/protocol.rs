//! The CNI protocol, versions 0.1.0 to 1.1.0, as values: nothing here reads the environment or a file.
//!
//! <https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md>

mod args;
mod config;
mod env;
mod error;
mod ipam;
mod keys;
mod result;
mod runtime;
mod version;

pub use args::Args;
pub use config::{Attachments, NetworkConfig, OwnerKey, conflist};
pub use env::{Invocation, Verb};
pub use error::{Code, Error};
pub use ipam::{Extras, Ipam, StaticAddress};
pub use result::{AddResult, Dns, Interface, IpConfig, RouteConfig};
pub use runtime::{Bandwidth, PortMapping, Protocol, RangeConfig, RuntimeConfig};
pub use version::{Version, version_answer};
