//! `v1 Pod`, and pod templates for the kinds that make pods.

mod bind;
mod containers;
mod fill;
mod probes;
mod quality;
mod quantities;
mod row;
mod spec;
mod update;

use serde_json::{Value, json};

use super::table_parts::{AGE, NAME, column, wide};
use super::validation::{metadata, names::NameRule};
use super::value::{child, flag, list, text};
use super::verbs::{GET_PATCH_UPDATE, STANDARD};
use super::{FieldError, Hooks, Kind, SelectableField, Subresource, prepare};

pub use bind::bind;
pub(super) use fill::template as default_template;
pub(super) use spec::template as validate_template;

pub(super) static POD: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[
        Subresource {
            name: "binding",
            verbs: &["create"],
            body: Some(("", "v1", "Binding")),
        },
        Subresource {
            name: "log",
            verbs: &["get"],
            body: None,
        },
        Subresource {
            name: "status",
            verbs: GET_PATCH_UPDATE,
            body: None,
        },
    ],
    columns: &[
        NAME,
        column("Ready", "Ready containers of all"),
        column("Status", "What the pod is doing"),
        column(
            "Restarts",
            "Restarts of all containers, and when the last was",
        ),
        AGE,
        wide("IP", "Address of the pod"),
        wide("Node", "Node that runs the pod"),
        wide("Nominated Node", "Node on which room is being made"),
        wide("Readiness Gates", "Passed of all readiness gates"),
    ],
    selectable: &[
        SelectableField {
            name: "spec.nodeName",
            get: |o| text(o, "/spec/nodeName").to_owned(),
        },
        SelectableField {
            name: "spec.restartPolicy",
            get: |o| text(o, "/spec/restartPolicy").to_owned(),
        },
        SelectableField {
            name: "spec.schedulerName",
            get: |o| text(o, "/spec/schedulerName").to_owned(),
        },
        SelectableField {
            name: "spec.serviceAccountName",
            get: |o| text(o, "/spec/serviceAccountName").to_owned(),
        },
        SelectableField {
            name: "spec.hostNetwork",
            get: |o| flag(o, "/spec/hostNetwork").to_string(),
        },
        SelectableField {
            name: "status.phase",
            get: |o| text(o, "/status/phase").to_owned(),
        },
        SelectableField {
            name: "status.podIP",
            get: |o| text(o, "/status/podIP").to_owned(),
        },
        SelectableField {
            name: "status.podIPs",
            get: |o| {
                let ips: Vec<&str> = list(o, "/status/podIPs")
                    .iter()
                    .map(|ip| text(ip, "/ip"))
                    .collect();
                ips.join(",")
            },
        },
        SelectableField {
            name: "status.nominatedNodeName",
            get: |o| text(o, "/status/nominatedNodeName").to_owned(),
        },
    ],
    view_of: None,
    hooks: Hooks {
        default: fill::pod,
        prepare_create,
        prepare_update: prepare::status_update,
        validate,
        row: row::pod,
    },
};

fn prepare_create(object: &mut Value) {
    let class = quality::class(&object["spec"]);
    object["status"] = json!({ "phase": "Pending", "qosClass": class });
    child(object, "spec");
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    spec::pod(&object["spec"], "spec", &mut errors);
    if let Some(old) = old {
        update::unchanged(object, old, &mut errors);
    }
    errors
}

#[cfg(test)]
mod tests;
