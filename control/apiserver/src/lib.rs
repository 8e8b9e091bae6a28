//! Kubernetes-compatible API server: enough of the API for an unmodified kubectl and for informers.
//!
//! Objects are JSON from the wire to the store and back; no typed struct ever re-serialises them. What a body may hold is
//! a table ([`schema`]): fields that its kind does not have are dropped, with a warning, or refused, as the client's
//! `fieldValidation` asks. Everything else about a kind stands in another one ([`kinds`]). A write is one transaction: read, check, default,
//! allocate, validate, write; so optimistic locking, allocation and patches never race.
//!
//! * [`ApiServer`] is what callers hold; [`Config`] what they decide.
//! * [`pki`] is the cluster's certificate authority.
//! * [`allocate`] hands out ClusterIPs and NodePorts.

mod agents;
pub mod allocate;
mod answer;
mod bootstrap;
mod config;
mod continuation;
mod decode;
pub mod discovery;
mod expiry;
mod files;
mod handlers;
mod identity;
pub mod kinds;
pub mod meta;
mod negotiate;
mod objects;
pub mod openapi;
pub mod patch;
pub mod pki;
mod quantity;
mod query;
mod route;
pub mod schema;
mod select;
pub mod selector;
mod serve;
mod server;
pub mod status;
pub mod table;

pub use agents::{Dialer, Dialing, Direct};
pub use config::Config;
pub use files::FileError;
pub use identity::Identity;
pub use serve::ServeError;
pub use server::{ApiServer, StartError};
