use serde_json::Value;

use super::super::value::{list, list_mut, remove};
use super::FieldError;

/// A running pod is what it is: only these may change (`ValidatePodUpdate`).
const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                       `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                       to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                       was previously negative)";

pub(super) fn unchanged(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (Some(after), Some(before)) = (new.get("spec"), old.get("spec")) else {
        return;
    };
    for pointer in ["/containers", "/initContainers"] {
        if list(after, pointer).len() != list(before, pointer).len() {
            let field = format!("spec{}", pointer.replace('/', "."));
            let what = pointer.trim_start_matches('/');
            let detail = format!("pod updates may not add or remove {what}");
            errors.push(FieldError::forbidden(field, detail));
            return;
        }
    }
    let kept = list(before, "/tolerations")
        .iter()
        .all(|t| list(after, "/tolerations").contains(t));
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    if frozen(after) != frozen(before) {
        errors.push(FieldError::forbidden("spec", MUTABLE));
    }
}

/// The spec without what may change.
fn frozen(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for pointer in ["/containers", "/initContainers"] {
        for container in list_mut(&mut spec, pointer) {
            remove(container, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations"] {
        remove(&mut spec, key);
    }
    spec
}
