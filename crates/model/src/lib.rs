//! The pure heart of Seaway: what every node should do with every packet, as values.
//!
//! Inputs (Services, EndpointSlices, Nodes as this project needs them) go in, the desired forwarding
//! state comes out, and nothing here can fail, wait, or look at the machine: bad input becomes a value
//! plus a [`Diagnostic`]. `cargo xtask tidy` keeps tokio, kube and libc out of this crate.
//!
//! Reading order: [`inputs`] and [`settings`] → [`derive`](mod@derive) → [`desired`] → [`oracle`]; [`delta`], [`maglev`]
//! and [`ownership`] are what data planes need besides. `testing` (a feature) generates clusters and packets.

#![forbid(unsafe_code)]

pub mod delta;
pub mod derive;
pub mod desired;
pub mod inputs;
pub mod maglev;
pub mod oracle;
pub mod ownership;
mod pack;
pub mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use delta::Delta;
pub use derive::{Diagnostic, derive_all, derive_service, keep_lifeline};
pub use desired::{
    Backend, Client, Desired, Frontend, FrontendAddr, FrontendKind, HealthCheck, PortRule,
    ServiceRules, WhenEmpty,
};
pub use inputs::{
    Algorithm, Change, DirectAnswers, Endpoint, EndpointSlice, Family, InputEvent, Inputs, Kind,
    Node, ObjectKey, Protocol, Service, ServicePort, SlicePort, TrafficPolicy,
};
pub use oracle::{
    NodeContext, Origin, Outcome, Outcomes, Packet, Remembered, outcomes, outcomes_for_known,
};
pub use pack::pack;
pub use settings::{DetectLocal, NodeSettings};
