//! `apps/v1 Deployment` and `ReplicaSet`: a selector, a count and a template of pods.

mod deployment;
mod replica_set;

use serde_json::{Value, json};

use super::value::{list, map, text};
use super::{FieldError, Subresource, pod};
use crate::selector::LabelSelector;

pub(super) use deployment::DEPLOYMENT;
pub(super) use replica_set::REPLICA_SET;

const SCALE: Subresource = Subresource {
    name: "scale",
    verbs: super::verbs::GET_PATCH_UPDATE,
    body: Some(("autoscaling", "v1", "Scale")),
};

/// Validates `spec.selector` and `spec.template` together.
fn selector_and_template(object: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let labels = object.pointer("/spec/template/metadata/labels");
    // Selects the template's labels. Upstream lets the empty selector pass here, and none at all selects nothing.
    let selects = match object.pointer("/spec/selector") {
        None => {
            errors.push(FieldError::required("spec.selector", ""));
            false
        }
        Some(selector) => {
            super::validation::label_selector(selector, "spec.selector", errors);
            let empty = map(selector, "/matchLabels").is_none_or(serde_json::Map::is_empty)
                && list(selector, "/matchExpressions").is_empty();
            if empty {
                let detail = format!("empty selector is invalid for {kind}");
                errors.push(FieldError::invalid(
                    "spec.selector",
                    selector.clone(),
                    detail,
                ));
            }
            let matches =
                |selector: LabelSelector| selector.matches(labels.and_then(Value::as_object));
            empty || LabelSelector::from_object(selector).is_ok_and(matches)
        }
    };
    if !selects {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            labels.cloned().unwrap_or_else(|| json!({})),
            detail,
        ));
    }
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    pod::validate_template(template, "spec.template", errors);
    let policy = text(template, "/spec/restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(
            "spec.template.spec.restartPolicy",
            policy,
            &["Always"],
        ));
    }
    if template.pointer("/spec/activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            detail,
        ));
    }
}

fn selector_unchanged(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(old) = old else { return };
    let (before, after) = (
        old.pointer("/spec/selector"),
        object.pointer("/spec/selector"),
    );
    if before != after {
        let value = after.cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            "spec.selector",
            value,
            "field is immutable",
        ));
    }
}

#[cfg(test)]
mod tests;
