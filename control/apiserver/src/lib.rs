//! Kubernetes-compatible API server.

pub mod kinds;
pub mod status;
