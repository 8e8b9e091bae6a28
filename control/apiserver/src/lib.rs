//! Kubernetes-compatible API server.

pub mod kinds;
pub mod meta;
pub mod selector;
pub mod status;
pub mod table;
