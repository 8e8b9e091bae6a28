//! Events: one stored object, seen as `v1 Event` and as `events.k8s.io/v1 Event`.

use jiff::Timestamp;
use serde_json::Value;

use super::table_parts::{NAME, column, wide};
use super::validation::{metadata, names::NameRule};
use super::value::{int, text};
use super::verbs::STANDARD;
use super::{Column, FieldError, Hooks, Kind, SelectableField, View, prepare};
use crate::{meta, table};

const COLUMNS: &[Column] = &[
    column("Last Seen", "Time of the last occurrence"),
    column("Type", "Normal or Warning"),
    column("Reason", "Short machine-readable reason"),
    column("Object", "What the event is about"),
    wide("Subobject", "Part of the object"),
    wide("Source", "Who reports"),
    column("Message", "Description for people"),
    wide("First Seen", "Time of the first occurrence"),
    Column {
        priority: 1,
        ..super::table_parts::number("Count", "Number of occurrences")
    },
    Column {
        priority: 1,
        ..NAME
    },
];

/// Fields that the two versions of the kind call differently: (core/v1, events.k8s.io/v1).
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) static EVENT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[],
    columns: COLUMNS,
    selectable: &[
        SelectableField {
            name: "involvedObject.kind",
            get: |o| text(o, "/involvedObject/kind").to_owned(),
        },
        SelectableField {
            name: "involvedObject.namespace",
            get: |o| text(o, "/involvedObject/namespace").to_owned(),
        },
        SelectableField {
            name: "involvedObject.name",
            get: |o| text(o, "/involvedObject/name").to_owned(),
        },
        SelectableField {
            name: "involvedObject.uid",
            get: |o| text(o, "/involvedObject/uid").to_owned(),
        },
        SelectableField {
            name: "involvedObject.apiVersion",
            get: |o| text(o, "/involvedObject/apiVersion").to_owned(),
        },
        SelectableField {
            name: "involvedObject.resourceVersion",
            get: |o| text(o, "/involvedObject/resourceVersion").to_owned(),
        },
        SelectableField {
            name: "involvedObject.fieldPath",
            get: |o| text(o, "/involvedObject/fieldPath").to_owned(),
        },
        SelectableField {
            name: "reason",
            get: |o| text(o, "/reason").to_owned(),
        },
        SelectableField {
            name: "reportingComponent",
            get: |o| text(o, "/reportingComponent").to_owned(),
        },
        SelectableField {
            name: "source",
            get: |o| component(o).to_owned(),
        },
        SelectableField {
            name: "type",
            get: |o| text(o, "/type").to_owned(),
        },
    ],
    view_of: None,
    hooks: Hooks {
        default: |_| {},
        prepare_create: prepare::plain_create,
        prepare_update: prepare::plain_update,
        validate,
        row,
    },
};

pub(super) static EVENT_V1: Kind = Kind {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[],
    columns: COLUMNS,
    selectable: &[
        SelectableField {
            name: "regarding.kind",
            get: |o| text(o, "/regarding/kind").to_owned(),
        },
        SelectableField {
            name: "regarding.namespace",
            get: |o| text(o, "/regarding/namespace").to_owned(),
        },
        SelectableField {
            name: "regarding.name",
            get: |o| text(o, "/regarding/name").to_owned(),
        },
        SelectableField {
            name: "regarding.uid",
            get: |o| text(o, "/regarding/uid").to_owned(),
        },
        SelectableField {
            name: "reason",
            get: |o| text(o, "/reason").to_owned(),
        },
        SelectableField {
            name: "reportingController",
            get: |o| text(o, "/reportingController").to_owned(),
        },
        SelectableField {
            name: "type",
            get: |o| text(o, "/type").to_owned(),
        },
    ],
    view_of: Some(&View {
        group: "",
        plural: "events",
        to_stored,
        from_stored,
    }),
    hooks: Hooks {
        default: |_| {},
        prepare_create: prepare::plain_create,
        prepare_update: prepare::plain_update,
        validate: |object, old| {
            let mut stored = object.clone();
            to_stored(&mut stored);
            validate(&stored, old)
        },
        row: |object, now| {
            let mut stored = object.clone();
            to_stored(&mut stored);
            row(&stored, now)
        },
    },
};

fn to_stored(event: &mut Value) {
    rename(event, "v1", RENAMED.iter().map(|(core, new)| (*new, *core)));
}

fn from_stored(event: &mut Value) {
    rename(event, "events.k8s.io/v1", RENAMED.iter().copied());
}

fn rename(
    event: &mut Value,
    api_version: &str,
    pairs: impl Iterator<Item = (&'static str, &'static str)>,
) {
    let Some(map) = event.as_object_mut() else {
        return;
    };
    map.insert("apiVersion".to_owned(), api_version.into());
    for (from, to) in pairs {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

/// Cluster-wide objects report into `default` (or `kube-system`); all others into their own namespace.
fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    let about = text(object, "/involvedObject/namespace");
    let own = meta::namespace(object);
    let misplaced = if about.is_empty() {
        !matches!(own, "default" | "kube-system")
    } else {
        about != own
    };
    if misplaced {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            about,
            "does not match event.namespace",
        ));
    }
    errors
}

fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let time = |pointer: &str| text(event, pointer).parse::<Timestamp>().ok();
    let first = time("/firstTimestamp").or_else(|| time("/eventTime"));
    let last = time("/series/lastObservedTime")
        .or_else(|| time("/lastTimestamp"))
        .or(first);
    let count = int(event, "/series/count")
        .or_else(|| int(event, "/count"))
        .filter(|n| *n > 0)
        .unwrap_or(1);
    let kind = text(event, "/involvedObject/kind").to_ascii_lowercase();
    let host = text(event, "/source/host");
    let instance = if host.is_empty() {
        text(event, "/reportingInstance")
    } else {
        host
    };
    let source = if instance.is_empty() {
        component(event).to_owned()
    } else {
        format!("{}, {instance}", component(event))
    };
    vec![
        table::age(last, now).into(),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        format!("{kind}/{}", text(event, "/involvedObject/name")).into(),
        text(event, "/involvedObject/fieldPath").into(),
        source.into(),
        text(event, "/message").trim().into(),
        table::age(first, now).into(),
        count.into(),
        meta::name(event).into(),
    ]
}

fn component(event: &Value) -> &str {
    let component = text(event, "/source/component");
    if component.is_empty() {
        text(event, "/reportingComponent")
    } else {
        component
    }
}
