//! Kinds that exist so that clients which list them find an (empty) list: `kubectl describe namespace` reads
//! ResourceQuotas and LimitRanges, `kubectl cluster-info dump` ReplicationControllers and DaemonSets.
//!
//! Nothing in this control plane acts on them, so they cannot be created: an object that is stored and ignored would
//! be a promise not kept.

use super::table_parts::{AGE, NAME, age};
use super::verbs::READ_ONLY;
use super::{Hooks, Kind, prepare};
use crate::meta;

pub(super) static RESOURCE_QUOTA: Kind = read_only(
    "",
    "ResourceQuota",
    "resourcequotas",
    "resourcequota",
    &["quota"],
    &[],
);
pub(super) static LIMIT_RANGE: Kind = read_only(
    "",
    "LimitRange",
    "limitranges",
    "limitrange",
    &["limits"],
    &[],
);
pub(super) static REPLICATION_CONTROLLER: Kind = read_only(
    "",
    "ReplicationController",
    "replicationcontrollers",
    "replicationcontroller",
    &["rc"],
    &["all"],
);
pub(super) static DAEMON_SET: Kind = read_only(
    "apps",
    "DaemonSet",
    "daemonsets",
    "daemonset",
    &["ds"],
    &["all"],
);

const fn read_only(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
) -> Kind {
    Kind {
        group,
        version: "v1",
        kind,
        plural,
        singular,
        short_names,
        categories,
        namespaced: true,
        verbs: READ_ONLY,
        subresources: &[],
        columns: &[NAME, AGE],
        selectable: &[],
        view_of: None,
        hooks: Hooks {
            default: |_| {},
            prepare_create: prepare::plain_create,
            prepare_update: prepare::plain_update,
            validate: |_, _| Vec::new(),
            row: |object, now| vec![meta::name(object).into(), age(object, now)],
        },
    }
}
