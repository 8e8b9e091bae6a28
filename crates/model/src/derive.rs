//! Service + slices + node → rules.

use crate::desired::ServiceRules;
use crate::inputs::{Inputs, ObjectKey};

/// Something in an object that we could not use as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub object: ObjectKey,
    /// JSON path, as `spec.ports[0].port`.
    pub field: String,
    /// What it means for traffic.
    pub consequence: String,
}

/// Derives the rules of one Service; `None` when the Service is not there.
pub fn derive_service(
    _inputs: &Inputs,
    _key: &ObjectKey,
    _node: &str,
) -> (Option<ServiceRules>, Vec<Diagnostic>) {
    (None, Vec::new())
}
