use super::*;
use crate::kinds;

fn parsed(group: &str, version: &str) -> Value {
    serde_json::from_str(&document(group, version).unwrap().body).unwrap()
}

#[test]
fn the_root_leads_to_documents_by_hash() {
    let root = root();
    let apps = document("apps", "v1").unwrap();
    let expected = format!("/openapi/v3/apis/apps/v1?hash={}", apps.hash);
    assert_eq!(root["paths"]["apis/apps/v1"]["serverRelativeURL"], expected);
    assert!(root["paths"]["api/v1"].is_object());
    assert!(document("nope", "v1").is_none());
}

#[test]
fn kubectl_finds_what_it_looks_for() {
    for kind in kinds::all().iter().filter(|k| k.verbs.contains(&"patch")) {
        let document = parsed(kind.group, kind.version);
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!(
            "{}{scope}/{}/{{name}}",
            prefix(kind.group, kind.version),
            kind.plural
        );
        let patch = &document["paths"][&path]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], kind.kind);
        let validates = |p: &Value| p["name"] == "fieldValidation" && p["in"] == "query";
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(validates),
            "{path}"
        );
        let content = patch["requestBody"]["content"].as_object().unwrap();
        assert!(content.contains_key("application/strategic-merge-patch+json"));
        let tagged = document["components"]["schemas"]
            .as_object()
            .unwrap()
            .values()
            .any(|schema| schema["x-kubernetes-group-version-kind"][0]["kind"] == kind.kind);
        assert!(tagged, "{}", kind.kind);
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                out.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|v| references(v, out));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, out)),
            _ => {}
        }
    }
    for (group, version) in discovery::group_versions() {
        let document = parsed(group, version);
        let mut all = Vec::new();
        references(&document, &mut all);
        assert!(!all.is_empty());
        for reference in all {
            let pointer = reference.trim_start_matches('#');
            assert!(
                document.pointer(pointer).is_some(),
                "{group}/{version}: {reference}"
            );
        }
    }
}

#[test]
fn merge_keys_and_descriptions_are_there() {
    let document = parsed("", "v1");
    let schemas = &document["components"]["schemas"];
    let ports = &schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(
        ports["x-kubernetes-list-map-keys"],
        json!(["port", "protocol"])
    );
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(
        schemas["io.k8s.api.core.v1.Service"]["description"],
        "A stable address for a changing set of pods."
    );
    assert_eq!(
        schemas["io.k8s.api.core.v1.ServicePort"]["required"],
        json!(["port"])
    );
}
