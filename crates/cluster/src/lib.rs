//! Where the inputs of the model come from: a Kubernetes API, or a directory of manifests.
//!
//! [`stream`](source::stream) is the whole interface: it yields [`seaway_model::InputEvent`]s, with
//! `Synced` exactly once, and says itself what vanished while it was not looking. Reading order:
//! [`source`] → `watch` (Kubernetes) and `manifests` (files) → [`convert`] (pure: API objects as
//! [`wire`] reads them → model types). [`pods`] and [`direct`] are apart: which Pods of a node have a label, and
//! what proxies tell each other.

#![forbid(unsafe_code)]

pub mod client;
pub mod convert;
pub mod direct;
pub mod events;
mod failure;
mod intern;
mod ip;
mod ledger;
pub mod manifests;
pub mod pods;
pub mod source;
pub mod watch;
pub mod wire;

pub use client::{Server, kube_client, server};
pub use convert::{Conversion, ObjectRef, convert};
pub use events::EventRecorder;
pub use failure::describe;
pub use intern::Interner;
pub use source::{Error, NodeScope, Source, Wants, stream, stream_telling};
