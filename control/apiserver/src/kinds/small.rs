//! Kinds with hardly any behaviour of their own: ServiceAccount and Lease.

use jiff::Timestamp;
use serde_json::Value;

use super::table_parts::{AGE, NAME, age, column, number};
use super::validation::{metadata, names::NameRule, non_negative};
use super::value::{int, list, text};
use super::verbs::STANDARD;
use super::{FieldError, Hooks, Kind, prepare};
use crate::meta;

pub(super) static SERVICE_ACCOUNT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[],
    columns: &[
        NAME,
        number("Secrets", "Number of secrets listed by the account"),
        AGE,
    ],
    selectable: &[],
    view_of: None,
    hooks: Hooks {
        default: |_| {},
        prepare_create: prepare::plain_create,
        prepare_update: prepare::plain_update,
        validate: validate_plain,
        row: |o, now| {
            vec![
                meta::name(o).into(),
                list(o, "/secrets").len().into(),
                age(o, now),
            ]
        },
    },
};

pub(super) static LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[],
    columns: &[NAME, column("Holder", "Who holds the lease"), AGE],
    selectable: &[],
    view_of: None,
    hooks: Hooks {
        default: |_| {},
        prepare_create: prepare::plain_create,
        prepare_update: prepare::plain_update,
        validate: validate_lease,
        row: lease_row,
    },
};

fn validate_plain(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    errors
}

fn validate_lease(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate_plain(object, old);
    if let Some(seconds) = int(object, "/spec/leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
    non_negative(
        object.pointer("/spec/leaseTransitions"),
        "spec.leaseTransitions",
        &mut errors,
    );
    errors
}

fn lease_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        text(object, "/spec/holderIdentity").into(),
        age(object, now),
    ]
}
