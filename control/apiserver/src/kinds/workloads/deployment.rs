use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::table_parts::{AGE, NAME, age, column, containers, number, selector, wide};
use super::super::validation::{metadata, names::NameRule, non_negative};
use super::super::value::{child, default, int, text};
use super::super::verbs::{GET_PATCH_UPDATE, STANDARD};
use super::super::{FieldError, Hooks, Kind, Subresource, pod, prepare};
use super::{SCALE, selector_and_template, selector_unchanged};
use crate::meta;

pub(in super::super) static DEPLOYMENT: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[
        SCALE,
        Subresource {
            name: "status",
            verbs: GET_PATCH_UPDATE,
            body: None,
        },
    ],
    columns: &[
        NAME,
        column("Ready", "Ready pods of those wanted"),
        number("Up-to-date", "Pods of the current template"),
        number("Available", "Pods ready for long enough"),
        AGE,
        wide("Containers", "Names of the containers"),
        wide("Images", "Images of the containers"),
        wide("Selector", "Labels of the pods"),
    ],
    selectable: &[],
    view_of: None,
    hooks: Hooks {
        default: fill,
        prepare_create: prepare::counted_create,
        prepare_update: prepare::counted_update,
        validate,
        row,
    },
};

/// `SetDefaults_Deployment`.
fn fill(object: &mut Value) {
    let spec = child(object, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = child(spec, "strategy");
    default(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", "25%");
        default(rolling, "maxSurge", "25%");
    }
    pod::default_template(child(spec, "template"));
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    let spec = &object["spec"];
    for key in [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        non_negative(spec.get(key), &format!("spec.{key}"), &mut errors);
    }
    selector_and_template(object, "deployment", &mut errors);
    strategy(&spec["strategy"], &mut errors);
    let deadline = int(spec, "/progressDeadlineSeconds");
    if let Some(deadline) = deadline.filter(|d| *d <= int(spec, "/minReadySeconds").unwrap_or(0)) {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            detail,
        ));
    }
    selector_unchanged(object, old, &mut errors);
    errors
}

fn strategy(strategy: &Value, errors: &mut Vec<FieldError>) {
    match text(strategy, "/type") {
        "Recreate" => {
            if strategy.get("rollingUpdate").is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
            }
        }
        "RollingUpdate" => {
            const FIELD: &str = "spec.strategy.rollingUpdate";
            let part = |key: &str| {
                strategy
                    .pointer(&format!("/rollingUpdate/{key}"))
                    .cloned()
                    .unwrap_or(json!(0))
            };
            let (unavailable, surge) = (part("maxUnavailable"), part("maxSurge"));
            let allowed = share(&unavailable, &format!("{FIELD}.maxUnavailable"), errors);
            let extra = share(&surge, &format!("{FIELD}.maxSurge"), errors);
            if allowed == Some(0) && extra == Some(0) {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(
                    format!("{FIELD}.maxUnavailable"),
                    unavailable.clone(),
                    detail,
                ));
            }
            if unavailable.is_string() && allowed.is_some_and(|percent| percent > 100) {
                let detail = "must not be greater than 100%";
                errors.push(FieldError::invalid(
                    format!("{FIELD}.maxUnavailable"),
                    unavailable,
                    detail,
                ));
            }
        }
        other => {
            errors.push(FieldError::not_supported(
                "spec.strategy.type",
                other,
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
}

/// A count or a percentage; `None` if it is neither.
fn share(value: &Value, field: &str, errors: &mut Vec<FieldError>) -> Option<i64> {
    if let Some(count) = value.as_i64() {
        non_negative(Some(value), field, errors);
        return Some(count);
    }
    let digits = value.as_str().and_then(|text| text.strip_suffix('%'));
    match digits
        .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|d| d.parse().ok())
    {
        Some(percent) => Some(percent),
        None => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                          '93%', regex used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(field, value.clone(), detail));
            None
        }
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |pointer: &str| int(object, pointer).unwrap_or(0);
    let (names, images) = containers(object, "/spec/template/spec/containers");
    vec![
        meta::name(object).into(),
        format!(
            "{}/{}",
            count("/status/readyReplicas"),
            count("/spec/replicas")
        )
        .into(),
        count("/status/updatedReplicas").into(),
        count("/status/availableReplicas").into(),
        age(object, now),
        names.into(),
        images.into(),
        selector(object, "/spec/selector").into(),
    ]
}
