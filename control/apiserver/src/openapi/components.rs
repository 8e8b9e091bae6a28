//! `components.schemas`: the types that a document's kinds reach.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::schema::{self, Field, ListKind, Merge, Type, TypeDef, registry};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// A reference to a type of the document.
pub(super) fn reference(full_name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{full_name}") })
}

/// The name of the type of a list of a kind's objects.
pub(super) fn list_name(def: &TypeDef) -> String {
    format!("{}List", def.full_name)
}

pub(super) fn schemas(kinds: &[&'static Kind]) -> Map<String, Value> {
    let mut schemas = common();
    for kind in kinds {
        let Some(def) = schema::of(kind) else {
            continue;
        };
        add(def, &mut schemas);
        let mut root = object_schema(def, true);
        root["x-kubernetes-group-version-kind"] = json!([gvk(kind.group, kind.version, kind.kind)]);
        schemas.insert(def.full_name.clone(), root);
        schemas.insert(list_name(def), list_schema(kind, def));
        for (group, version, name) in kind.subresources.iter().filter_map(|sub| sub.body) {
            let api_version = if group.is_empty() {
                version.to_owned()
            } else {
                format!("{group}/{version}")
            };
            if let Some(body) = registry().root(&api_version, name) {
                add(body, &mut schemas);
                let mut root = object_schema(body, true);
                root["x-kubernetes-group-version-kind"] = json!([gvk(group, version, name)]);
                schemas.insert(body.full_name.clone(), root);
            }
        }
    }
    schemas
}

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

/// Adds a type and all that it refers to.
fn add(def: &TypeDef, schemas: &mut Map<String, Value>) {
    if schemas.contains_key(&def.full_name) {
        return;
    }
    schemas.insert(def.full_name.clone(), object_schema(def, false));
    for field in &def.fields {
        if let Some(index) = referred(&field.ty) {
            add(registry().get(index), schemas);
        }
    }
}

fn referred(ty: &Type) -> Option<usize> {
    match ty {
        Type::Ref(index) => Some(*index),
        Type::List(item) | Type::Map(item) => referred(item),
        _ => None,
    }
}

fn object_schema(def: &TypeDef, root: bool) -> Value {
    let mut properties = Map::new();
    if root {
        properties.insert(
            "apiVersion".to_owned(),
            described(json!({ "type": "string" }), "Version of the schema."),
        );
        properties.insert(
            "kind".to_owned(),
            described(json!({ "type": "string" }), "Name of the schema."),
        );
    }
    for field in &def.fields {
        properties.insert(field.name.to_owned(), property(field));
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    if !def.doc.is_empty() {
        schema["description"] = def.doc.into();
    }
    let required: Vec<&str> = def
        .fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = type_schema(&field.ty);
    if !field.doc.is_empty() {
        schema = described(schema, field.doc);
    }
    let strategy = match (field.merge, field.retain_keys) {
        (Merge::Replace, false) => None,
        (Merge::Replace, true) => Some("retainKeys"),
        (Merge::Union | Merge::Key(_), false) => Some("merge"),
        (Merge::Union | Merge::Key(_), true) => Some("merge,retainKeys"),
    };
    if let Some(strategy) = strategy {
        schema["x-kubernetes-patch-strategy"] = strategy.into();
    }
    if let Merge::Key(key) = field.merge {
        schema["x-kubernetes-patch-merge-key"] = key.into();
    }
    match &field.list {
        ListKind::Unset => {}
        ListKind::Atomic => schema["x-kubernetes-list-type"] = "atomic".into(),
        ListKind::Set => schema["x-kubernetes-list-type"] = "set".into(),
        ListKind::Map(keys) => {
            schema["x-kubernetes-list-type"] = "map".into();
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
    schema
}

fn type_schema(ty: &Type) -> Value {
    match ty {
        Type::String => json!({ "type": "string" }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int32 => json!({ "type": "integer", "format": "int32" }),
        Type::Int64 => json!({ "type": "integer", "format": "int64" }),
        Type::Bytes => json!({ "type": "string", "format": "byte" }),
        Type::Object => json!({ "type": "object" }),
        Type::Time => reference(TIME),
        Type::MicroTime => reference(MICRO_TIME),
        Type::IntOrString => reference(INT_OR_STRING),
        Type::Quantity => reference(QUANTITY),
        Type::Ref(index) => reference(&registry().get(*index).full_name),
        Type::List(item) => json!({ "type": "array", "items": type_schema(item) }),
        Type::Map(item) => json!({ "type": "object", "additionalProperties": type_schema(item) }),
    }
}

/// OpenAPI 3.0 ignores what stands beside a `$ref`, so a description wraps it.
fn described(schema: Value, text: &str) -> Value {
    let mut schema = if schema.get("$ref").is_some() {
        json!({ "allOf": [schema] })
    } else {
        schema
    };
    schema["description"] = text.into();
    schema
}

fn list_schema(kind: &Kind, def: &TypeDef) -> Value {
    let name = format!("{}List", kind.kind);
    json!({
        "type": "object",
        "description": format!("A list of objects of kind {}.", kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": reference(&format!("{META}.ListMeta")),
            "items": { "type": "array", "items": reference(&def.full_name) },
        },
        "x-kubernetes-group-version-kind": [gvk(kind.group, kind.version, &name)],
    })
}

/// Types that are not in the table, since no object of ours consists of them.
fn common() -> Map<String, Value> {
    let types = [
        (
            TIME.to_owned(),
            json!({ "type": "string", "format": "date-time" }),
        ),
        (
            MICRO_TIME.to_owned(),
            json!({ "type": "string", "format": "date-time" }),
        ),
        (
            INT_OR_STRING.to_owned(),
            json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] }),
        ),
        (
            QUANTITY.to_owned(),
            json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
        ),
        (
            format!("{META}.Patch"),
            json!({ "type": "object", "description": "Changes to an object." }),
        ),
        (
            format!("{META}.DeleteOptions"),
            json!({ "type": "object", "description": "How to delete an object." }),
        ),
        (
            format!("{META}.Status"),
            json!({ "type": "object", "description": "The outcome of a request." }),
        ),
        (
            format!("{META}.ListMeta"),
            json!({ "type": "object", "description": "What a list has besides its items.", "properties": {
                "resourceVersion": { "type": "string" },
                "continue": { "type": "string" },
                "remainingItemCount": { "type": "integer", "format": "int64" },
            }}),
        ),
    ];
    types.into_iter().collect()
}
