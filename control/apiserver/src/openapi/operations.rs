//! `paths`: one entry per collection, object and subresource.

use serde_json::{Map, Value, json};

use super::components::{gvk, list_name, reference};
use crate::kinds::{Kind, Subresource};
use crate::patch;
use crate::schema::{self, TypeDef, registry};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// What an operation is about, besides its path.
struct Subject {
    /// Full name of the body's type.
    body: String,
    gvk: Value,
}

pub(super) fn paths(kind: &'static Kind, prefix: &str, paths: &mut Map<String, Value>) {
    let Some(def) = schema::of(kind) else { return };
    let scope = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{prefix}{scope}/{}", kind.plural);
    let object = format!("{collection}/{{name}}");
    let subject = Subject {
        body: def.full_name.clone(),
        gvk: gvk(kind.group, kind.version, kind.kind),
    };
    if kind.namespaced {
        let all = json!({ "get": list(kind, def), "parameters": [] });
        paths.insert(format!("{prefix}/{}", kind.plural), all);
    }
    paths.insert(collection, collection_item(kind, def, &subject));
    let mut item = item(kind.verbs, &subject, kind.namespaced);
    if !kind.verbs.contains(&"patch") {
        // kubectl looks for this before it asks us to create anything, and gives up with a message about OpenAPI. Our
        // own refusal says what is the matter.
        item["patch"] = patch_operation(&subject);
    }
    paths.insert(object.clone(), item);
    for sub in kind.subresources {
        paths.insert(
            format!("{object}/{}", sub.name),
            subresource_item(kind, sub, &subject),
        );
    }
}

fn collection_item(kind: &Kind, def: &TypeDef, subject: &Subject) -> Value {
    let mut item = json!({ "parameters": path_parameters(kind.namespaced, false) });
    if kind.verbs.contains(&"list") {
        item["get"] = list(kind, def);
    }
    if kind.verbs.contains(&"create") {
        item["post"] = write("post", subject);
    }
    if kind.verbs.contains(&"deletecollection") {
        item["delete"] = operation(
            "deletecollection",
            &subject.gvk,
            &format!("{META}.Status"),
            &[],
        );
    }
    item
}

fn item(verbs: &[&str], subject: &Subject, namespaced: bool) -> Value {
    let mut item = json!({ "parameters": path_parameters(namespaced, true) });
    if verbs.contains(&"get") {
        item["get"] = operation("get", &subject.gvk, &subject.body, &[]);
    }
    // Objects are created at their collection; a named path that takes POST is a subresource (binding).
    if verbs.contains(&"create") && !verbs.contains(&"list") {
        item["post"] = write("post", subject);
    }
    if verbs.contains(&"update") {
        item["put"] = write("put", subject);
    }
    if verbs.contains(&"patch") {
        item["patch"] = patch_operation(subject);
    }
    if verbs.contains(&"delete") {
        let mut delete = operation(
            "delete",
            &subject.gvk,
            &format!("{META}.Status"),
            &["dryRun"],
        );
        delete["requestBody"] = json_body(&format!("{META}.DeleteOptions"));
        item["delete"] = delete;
    }
    item
}

fn subresource_item(kind: &Kind, sub: &Subresource, parent: &Subject) -> Value {
    let own = sub.body.and_then(|(group, version, name)| {
        let api_version = if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        };
        let def = registry().root(&api_version, name)?;
        Some(Subject {
            body: def.full_name.clone(),
            gvk: gvk(group, version, name),
        })
    });
    item(sub.verbs, own.as_ref().unwrap_or(parent), kind.namespaced)
}

fn list(kind: &Kind, def: &TypeDef) -> Value {
    let parameters = [
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "watch",
    ];
    operation(
        "list",
        &gvk(kind.group, kind.version, kind.kind),
        &list_name(def),
        &parameters,
    )
}

fn write(action: &str, subject: &Subject) -> Value {
    let mut operation = operation(
        action,
        &subject.gvk,
        &subject.body,
        &["dryRun", "fieldManager", "fieldValidation"],
    );
    operation["requestBody"] = json_body(&subject.body);
    operation
}

/// kubectl validates on the server when it finds `fieldValidation` here, and computes strategic merge patches from our
/// schemas when it finds their media type: they carry all merge keys.
fn patch_operation(subject: &Subject) -> Value {
    let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"];
    let mut operation = operation("patch", &subject.gvk, &subject.body, &parameters);
    let body = json!({ "schema": reference(&format!("{META}.Patch")) });
    let content: Map<String, Value> = patch::ACCEPTED
        .iter()
        .map(|t| ((*t).to_owned(), body.clone()))
        .collect();
    operation["requestBody"] = json!({ "required": true, "content": content });
    operation
}

fn operation(action: &str, gvk: &Value, answer: &str, query: &[&str]) -> Value {
    let parameters: Vec<Value> = query
        .iter()
        .map(|name| {
            let kind = match *name {
                "limit" => "integer",
                "watch" | "force" => "boolean",
                _ => "string",
            };
            json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
        })
        .collect();
    json!({
        "parameters": parameters,
        "responses": { "200": {
            "description": "OK",
            "content": { "application/json": { "schema": reference(answer) } },
        }},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
    })
}

fn json_body(full_name: &str) -> Value {
    json!({ "required": true, "content": { "application/json": { "schema": reference(full_name) } } })
}

fn path_parameters(namespaced: bool, named: bool) -> Value {
    let parameter = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    let names = [("name", named), ("namespace", namespaced)];
    names
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| parameter(name))
        .collect()
}
