//! The kinds this server knows, as one static table.
//!
//! Everything a request needs to know about a resource stands here once: names for discovery, columns for tables,
//! selectable fields, and pure functions for defaulting, preparation, validation and printing. The server core only
//! walks the table; it has no `if kind == "Pod"` of its own.

mod config;
mod endpoint_slice;
mod event;
mod field_error;
mod namespace;
mod node;
mod pod;
mod prepare;
mod read_only;
mod service;
mod small;
mod table_parts;
mod validation;
mod value;
mod verbs;
mod workloads;

use jiff::Timestamp;
use serde_json::Value;

pub use field_error::{FieldError, FieldErrorKind};
pub use namespace::finalize as finalize_namespace;
pub use pod::bind as bind_pod;
pub(crate) use validation::names;

static KINDS: &[&Kind] = &[
    &config::CONFIG_MAP,
    &event::EVENT,
    &read_only::LIMIT_RANGE,
    &namespace::NAMESPACE,
    &node::NODE,
    &pod::POD,
    &read_only::REPLICATION_CONTROLLER,
    &read_only::RESOURCE_QUOTA,
    &config::SECRET,
    &small::SERVICE_ACCOUNT,
    &service::SERVICE,
    &read_only::DAEMON_SET,
    &workloads::DEPLOYMENT,
    &workloads::REPLICA_SET,
    &event::EVENT_V1,
    &small::LEASE,
    &endpoint_slice::ENDPOINT_SLICE,
];

/// One resource of one group-version.
#[derive(Debug)]
pub struct Kind {
    /// API group; empty for core.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Name in URLs.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// What the main resource can do, in discovery's order.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Columns of `kubectl get`, in the order of [`Kind::row`]'s cells.
    pub columns: &'static [Column],
    /// Field selectors besides `metadata.name` and `metadata.namespace`, which every kind has.
    pub selectable: &'static [SelectableField],
    /// Where objects of this kind are kept, if they are a view of another kind's objects.
    pub view_of: Option<&'static View>,
    /// The functions that make this kind what it is; call them through the methods of [`Kind`].
    pub hooks: Hooks,
}

/// A path below an object, with the kind of its body.
#[derive(Debug)]
pub struct Subresource {
    /// `status`, `scale`, `log`, `binding`, `finalize`...
    pub name: &'static str,
    pub verbs: &'static [&'static str],
    /// Group, version and kind of the body where they differ from the parent's (`autoscaling/v1 Scale`).
    pub body: Option<(&'static str, &'static str, &'static str)>,
}

/// One column of a `meta.k8s.io/v1 Table`.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`...
    pub kind: &'static str,
    /// `name` for the Name column, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// A field that a field selector may name.
#[derive(Debug)]
pub struct SelectableField {
    pub name: &'static str,
    /// The value compared; the empty string where the field is absent.
    pub get: fn(&Value) -> String,
}

/// Two kinds over the same stored objects (`events.k8s.io/v1 Event` over core `Event`).
#[derive(Debug)]
pub struct View {
    /// Group and plural under which the objects are stored.
    pub group: &'static str,
    pub plural: &'static str,
    /// From this kind's form to the stored form (sets apiVersion too).
    pub to_stored: fn(&mut Value),
    /// From the stored form to this kind's form.
    pub from_stored: fn(&mut Value),
}

/// The parts of a kind's behaviour that differ between kinds.
#[derive(Debug)]
pub struct Hooks {
    pub default: fn(&mut Value),
    pub prepare_create: fn(&mut Value),
    pub prepare_update: fn(&mut Value, &Value),
    pub validate: fn(&Value, Option<&Value>) -> Vec<FieldError>,
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
}

/// All kinds, in discovery's order.
pub fn all() -> &'static [&'static Kind] {
    KINDS
}

/// The kind served at `/apis/{group}/{version}/.../{plural}`.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    all()
        .iter()
        .copied()
        .find(|k| k.group == group && k.version == version && k.plural == plural)
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: how messages name the resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Pod`, `Deployment.apps`: how `is invalid` messages name the kind.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// Group and plural under which objects are kept in the store.
    pub fn storage(&self) -> (&'static str, &'static str) {
        self.view_of
            .map_or((self.group, self.plural), |v| (v.group, v.plural))
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Fills in what the client left out. Idempotent; run on every decoded body before validation.
    pub fn default(&self, object: &mut Value) {
        (self.hooks.default)(object);
    }

    /// Makes a decoded body a new object of the main resource: drops status, sets generation 1 where the kind has one,
    /// and the kind's own (pod phase, namespace finalizer, not-ready taint). Name, uid, creationTimestamp and
    /// resourceVersion are the server's.
    pub fn prepare_create(&self, object: &mut Value) {
        (self.hooks.prepare_create)(object);
    }

    /// Makes a decoded body the successor of `old` through the main resource: carries over status, system metadata and
    /// allocated fields that were left out, and moves `metadata.generation` when the spec changed.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        (self.hooks.prepare_update)(new, old);
    }

    /// The same through `/status`: everything but `status` (and labels' siblings in metadata) stays as in `old`.
    pub fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        prepare::through_status(new, old);
    }

    /// Everything wrong with the object; with `old`, also what may not change.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        (self.hooks.validate)(object, old)
    }

    /// Cells of the object's table row, one per column.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.hooks.row)(object, now)
    }
}

#[cfg(test)]
mod tests;
