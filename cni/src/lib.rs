//! The CNI plugin: gives a pod its interface, its address and its routes, and takes them away again.
//!
//! A pod gets a routed veth and no bridge: a /32 (or /128), a link-local gateway that is a permanent neighbour in the
//! pod, and one host route. What lies between nodes is the overlay's matter; the two meet in the [`node`] file.
//!
//! Called as `ptp` or `host-local` it stands in the place of those reference plugins ([`personality`]).
//!
//! Reading order: [`protocol`] (what runtimes send and get, pure) → [`attachment`] and [`plan`] (what to do, pure) →
//! [`ipam`] (who has which address; pool and ranges are pure, the ledger is files) → [`apply`], [`ports`] and
//! [`bandwidth`] (the kernel) → [`command`] (the verbs) → [`cli`] (what a person calls).

#![forbid(unsafe_code)]

pub mod apply;
pub mod attachment;
pub mod bandwidth;
pub mod cli;
pub mod command;
pub mod delegate;
pub mod install;
pub mod ipam;
pub mod node;
pub mod personality;
pub mod plan;
pub mod ports;
pub mod protocol;

/// The `type` under which runtimes look for the plugin, and the name of its file.
pub const PLUGIN_NAME: &str = "seaway-cni";

/// The network name in the config list that we write; the ledger of addresses is kept per network name.
pub const NETWORK_NAME: &str = "seaway";
