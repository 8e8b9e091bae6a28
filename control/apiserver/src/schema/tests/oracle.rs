//! The table against an independent reading of the API: the types of `k8s-openapi`.
//!
//! An object that has every field of our table goes through their structs, which drop what they do not know and refuse
//! wrong types: all of it must come back. (What they know and we do not is found by reading, not here: leaving rare
//! fields out is allowed, inventing fields is not.)

use k8s_openapi::api::{apps, autoscaling, coordination, core, discovery, events};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::*;

/// A value for every field, as deep as the type goes.
fn full(def: &TypeDef, depth: usize) -> Value {
    let fields = def
        .fields
        .iter()
        .filter(|field| !(depth > 12 && matches!(field.ty, Type::Ref(_))));
    Value::Object(
        fields
            .map(|field| (field.name.to_owned(), sample(&field.ty, depth)))
            .collect(),
    )
}

fn sample(ty: &Type, depth: usize) -> Value {
    match ty {
        Type::String => "text".into(),
        Type::Bool => true.into(),
        Type::Int32 | Type::Int64 | Type::IntOrString => 7.into(),
        Type::Time => "2026-01-01T00:00:00Z".into(),
        Type::MicroTime => "2026-01-01T00:00:00.000001Z".into(),
        Type::Quantity => "1Gi".into(),
        Type::Bytes => "AAEC".into(),
        Type::Object => json!({}),
        Type::Ref(index) => full(registry().get(*index), depth + 1),
        Type::List(item) => json!([sample(item, depth)]),
        Type::Map(item) => json!({ "key": sample(item, depth) }),
    }
}

/// Paths of `ours` that did not survive.
fn lost(ours: &Value, theirs: Option<&Value>, path: &str, out: &mut Vec<String>) {
    match (ours, theirs) {
        // Their structs may want fields inside what is free-form for us.
        (Value::Object(map), _) if map.is_empty() => {}
        (Value::Object(map), Some(Value::Object(other))) => {
            for (key, value) in map {
                lost(value, other.get(key), &format!("{path}.{key}"), out);
            }
        }
        (Value::Array(items), Some(Value::Array(other))) => {
            lost(&items[0], other.first(), path, out);
        }
        (a, Some(b)) if a == b => {}
        _ => out.push(path.to_owned()),
    }
}

/// Free-form parts are left out: their structs know more about them than we want to.
fn without_free_forms(value: &mut Value) {
    if let Value::Object(map) = value {
        let kept: Map<String, Value> = std::mem::take(map)
            .into_iter()
            .filter(|(_, v)| v.as_object().is_none_or(|m| !m.is_empty()))
            .collect();
        *map = kept;
        map.values_mut().for_each(without_free_forms);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(without_free_forms);
    }
}

fn compare<T: Serialize + DeserializeOwned>(api_version: &str, kind: &str) {
    let def = registry().root(api_version, kind).unwrap();
    let mut ours = full(def, 0);
    without_free_forms(&mut ours);
    ours["apiVersion"] = api_version.into();
    ours["kind"] = kind.into();
    let typed: T =
        serde_json::from_value(ours.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    let mut missing = Vec::new();
    lost(
        &ours,
        Some(&serde_json::to_value(typed).unwrap()),
        kind,
        &mut missing,
    );
    // Of the table's 1.33 fields that the client library of 1.33 does not model, there are none.
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_table_agrees_with_k8s_openapi() {
    compare::<core::v1::Namespace>("v1", "Namespace");
    compare::<core::v1::Node>("v1", "Node");
    compare::<core::v1::Pod>("v1", "Pod");
    compare::<core::v1::Service>("v1", "Service");
    compare::<core::v1::ConfigMap>("v1", "ConfigMap");
    compare::<core::v1::Secret>("v1", "Secret");
    compare::<core::v1::ServiceAccount>("v1", "ServiceAccount");
    compare::<core::v1::Event>("v1", "Event");
    compare::<core::v1::Binding>("v1", "Binding");
    compare::<core::v1::ResourceQuota>("v1", "ResourceQuota");
    compare::<core::v1::LimitRange>("v1", "LimitRange");
    compare::<core::v1::ReplicationController>("v1", "ReplicationController");
    compare::<apps::v1::Deployment>("apps/v1", "Deployment");
    compare::<apps::v1::ReplicaSet>("apps/v1", "ReplicaSet");
    compare::<apps::v1::DaemonSet>("apps/v1", "DaemonSet");
    compare::<autoscaling::v1::Scale>("autoscaling/v1", "Scale");
    compare::<coordination::v1::Lease>("coordination.k8s.io/v1", "Lease");
    compare::<discovery::v1::EndpointSlice>("discovery.k8s.io/v1", "EndpointSlice");
    compare::<events::v1::Event>("events.k8s.io/v1", "Event");
}
