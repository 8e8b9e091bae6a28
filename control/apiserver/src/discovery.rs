//! What the server offers, in both forms: aggregated (one document, `apidiscovery.k8s.io/v2`) and legacy (a list per
//! group-version). Both come from the table of kinds, so they cannot disagree.

use serde_json::{Value, json};

use crate::kinds::{self, Kind, Subresource};

/// `GET /api`, legacy form.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// `GET /apis`, legacy form.
pub fn groups() -> Value {
    let groups: Vec<Value> = group_names()
        .into_iter()
        .filter(|g| !g.is_empty())
        .map(group_entry)
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `GET /apis/{group}`.
pub fn group(name: &str) -> Option<Value> {
    if name.is_empty() || !group_names().contains(&name) {
        return None;
    }
    let mut entry = group_entry(name);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

/// `GET /api/v1` and `/apis/{group}/{version}`: resources and their subresources.
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Kind> = of_version(group, version).collect();
    let first = kinds.first()?;
    let mut resources = Vec::new();
    for kind in &kinds {
        resources.push(legacy_resource(kind));
        resources.extend(
            kind.subresources
                .iter()
                .map(|sub| legacy_subresource(kind, sub)),
        );
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

/// `GET /api` (`core`) and `/apis` in the aggregated form. Only for clients that ask for exactly `v2`.
pub fn aggregated(core: bool) -> Value {
    let items: Vec<Value> = group_names()
        .into_iter()
        .filter(|group| group.is_empty() == core)
        .map(aggregated_group)
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

/// Groups and versions that have an OpenAPI document, in discovery's order.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut seen = Vec::new();
    for kind in kinds::all() {
        if !seen.contains(&(kind.group, kind.version)) {
            seen.push((kind.group, kind.version));
        }
    }
    seen
}

fn group_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for (group, _) in group_versions() {
        if !names.contains(&group) {
            names.push(group);
        }
    }
    names
}

fn versions_of(group: &str) -> Vec<&'static str> {
    group_versions()
        .into_iter()
        .filter(|(g, _)| *g == group)
        .map(|(_, version)| version)
        .collect()
}

fn of_version(group: &str, version: &str) -> impl Iterator<Item = &'static Kind> {
    kinds::all()
        .iter()
        .copied()
        .filter(move |kind| kind.group == group && kind.version == version)
}

fn group_entry(group: &str) -> Value {
    let versions: Vec<Value> = versions_of(group)
        .into_iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions[0] })
}

fn legacy_resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    names(kind, &mut resource);
    resource
}

fn legacy_subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut resource = json!({
        "name": format!("{}/{}", kind.plural, sub.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.body.map_or(kind.kind, |(_, _, kind)| kind),
        "verbs": sub.verbs,
    });
    if let Some((group, version, _)) = sub
        .body
        .filter(|body| (body.0, body.1) != (kind.group, kind.version))
    {
        resource["group"] = group.into();
        resource["version"] = version.into();
    }
    resource
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions_of(group)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = of_version(group, version)
                .map(aggregated_resource)
                .collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({ "creationTimestamp": null })
    } else {
        json!({ "name": group, "creationTimestamp": null })
    };
    json!({ "metadata": metadata, "versions": versions })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    names(kind, &mut resource);
    if !kind.subresources.is_empty() {
        resource["subresources"] = kind
            .subresources
            .iter()
            .map(|sub| aggregated_subresource(kind, sub))
            .collect();
    }
    resource
}

fn aggregated_subresource(kind: &Kind, sub: &Subresource) -> Value {
    let (group, version, name) = sub.body.unwrap_or((kind.group, kind.version, kind.kind));
    json!({
        "subresource": sub.name,
        "responseKind": { "group": group, "version": version, "kind": name },
        "verbs": sub.verbs,
    })
}

/// Names that kubectl takes instead of the plural.
fn names(kind: &Kind, resource: &mut Value) {
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
}

#[cfg(test)]
mod tests;
