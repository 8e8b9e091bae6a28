//! `v1 Service`.
//!
//! Addresses, their families and node ports are allocated by the server inside the commit; this module carries them over
//! when an update leaves them out, and drops them when the type no longer has them.

mod fill;
mod prepare;
mod row;
mod validate;

use super::table_parts::{AGE, NAME, column, wide};
use super::value::text;
use super::verbs::{GET_PATCH_UPDATE, STANDARD};
use super::{Hooks, Kind, SelectableField, Subresource};

pub(super) static SERVICE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[Subresource {
        name: "status",
        verbs: GET_PATCH_UPDATE,
        body: None,
    }],
    columns: &[
        NAME,
        column("Type", "How the service is exposed"),
        column("Cluster-IP", "Virtual address inside the cluster"),
        column("External-IP", "Addresses reachable from outside"),
        column("Port(s)", "Ports, with node ports after the colon"),
        AGE,
        wide("Selector", "Labels of the pods behind the service"),
    ],
    selectable: &[
        SelectableField {
            name: "spec.clusterIP",
            get: |o| text(o, "/spec/clusterIP").to_owned(),
        },
        SelectableField {
            name: "spec.type",
            get: |o| text(o, "/spec/type").to_owned(),
        },
    ],
    view_of: None,
    hooks: Hooks {
        default: fill::service,
        prepare_create: prepare::create,
        prepare_update: prepare::update,
        validate: validate::service,
        row: row::service,
    },
};

#[cfg(test)]
mod tests;
