//! The pure heart of Seaway: what every node should do with every packet, as values.
//!
//! Inputs (Services, EndpointSlices, Nodes as this project needs them) go in, the desired forwarding
//! state comes out, and nothing here can fail, wait, or look at the machine: bad input becomes a value
//! plus a [`Diagnostic`]. `cargo xtask tidy` keeps tokio, kube and libc out of this crate.
//!
//! Reading order: [`inputs`] → [`derive`](mod@derive) → [`desired`] → [`oracle`]; [`delta`] and
//! [`ownership`] are what every data plane needs besides.

#![forbid(unsafe_code)]

pub mod delta;
pub mod derive;
pub mod desired;
pub mod inputs;
pub mod oracle;
pub mod ownership;

pub use derive::{Diagnostic, derive_service};
pub use desired::{Backend, Desired, Frontend, FrontendAddr, FrontendKind, PortRule, ServiceRules};
pub use inputs::{
    Change, Endpoint, EndpointSlice, Family, InputEvent, Inputs, Node, ObjectKey, Protocol,
    Service, ServicePort, SlicePort, TrafficPolicy,
};
