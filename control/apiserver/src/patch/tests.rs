use serde_json::{Value, json};

use super::*;
use crate::kinds;

#[expect(
    clippy::needless_pass_by_value,
    reason = "cases read better with values in place"
)]
fn strategic(kind: (&str, &str), current: Value, patch: Value) -> Result<Value, Status> {
    apply(
        kinds::find(kind.0, "v1", kind.1).unwrap(),
        PatchType::Strategic,
        &current,
        &patch,
    )
}

const SERVICE: (&str, &str) = ("", "services");
const POD: (&str, &str) = ("", "pods");
const DEPLOYMENT: (&str, &str) = ("apps", "deployments");

#[test]
fn strategic_merge() {
    let containers = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]);
    let cases = [
        (
            "maps merge, null deletes",
            POD,
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
        ),
        (
            "list items merge by key",
            POD,
            json!({"spec": {"containers": containers}}),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}),
        ),
        (
            "a new item is added",
            SERVICE,
            json!({"spec": {"ports": [{"port": 80}]}}),
            json!({"spec": {"ports": [{"port": 81, "name": null}]}}),
            json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}),
        ),
        (
            "what kubectl apply sends when an item was removed",
            SERVICE,
            json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}}),
            json!({"spec": {"$setElementOrder/ports": [{"port": 80}], "ports": [{"$patch": "delete", "port": 81}]}}),
            json!({"spec": {"ports": [{"name": "a", "port": 80}]}}),
        ),
        (
            "order of the client, server's items in between",
            POD,
            json!({"spec": {"containers": [{"name": "a"}, {"name": "side"}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
                "containers": [{"name": "new", "image": "n"}]}}),
            json!({"spec": {"containers": [{"name": "side"}, {"name": "b"}, {"name": "new", "image": "n"},
                {"name": "a"}]}}),
        ),
        (
            "replace a list",
            POD,
            json!({"spec": {"containers": containers}}),
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "c"}]}}),
        ),
        (
            "replace a map",
            POD,
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        ),
        (
            "delete the content of a map",
            POD,
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}}),
        ),
        (
            "lists without a key are replaced",
            POD,
            json!({"spec": {"tolerations": [{"key": "a"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
        ),
        (
            "scalars unite, and leave",
            POD,
            json!({"metadata": {"finalizers": ["x/a", "x/b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"], "finalizers": ["x/c"]}}),
            json!({"metadata": {"finalizers": ["x/b", "x/c"]}}),
        ),
        (
            "retainKeys clears a union",
            DEPLOYMENT,
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        ),
        (
            "retainKeys inside list items",
            POD,
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
        ),
        (
            "deep: environment of a template's container",
            DEPLOYMENT,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}]}}}}),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}]}]}}}}),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}}}}),
        ),
        (
            "conditions merge by type",
            ("", "nodes"),
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "True"}]}}),
            json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}],
                "conditions": [{"type": "Ready", "status": "False"}]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]}}),
        ),
    ];
    for (name, kind, current, patch, expected) in cases {
        assert_eq!(strategic(kind, current, patch).unwrap(), expected, "{name}");
    }
}

#[test]
fn patches_that_make_no_sense() {
    let cases = [
        (
            json!({"spec": {"ports": [{"name": "a"}]}}),
            "map: {\"name\":\"a\"} does not contain declared merge key: port",
        ),
        (
            json!({"metadata": {"labels": {"$patch": "explode"}}}),
            "invalid value for annotation key: Unknown patch type found: explode",
        ),
        (
            json!({"spec": {"$setElementOrder/ports": 1}}),
            "invalid patch format of $setElementOrder",
        ),
    ];
    for (patch, expected) in cases {
        let error =
            strategic(SERVICE, json!({"spec": {"ports": [{"port": 1}]}}), patch).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, expected));
    }
}

#[test]
fn merge_and_json_patches() {
    let kind = kinds::find("", "v1", "services").unwrap();
    let current = json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let merge = json!({"spec": {"ports": [{"port": 81}], "selector": null}});
    let merged = apply(kind, PatchType::Merge, &current, &merge).unwrap();
    assert_eq!(merged, json!({"spec": {"ports": [{"port": 81}]}}));
    let operations = json!([{"op": "test", "path": "/spec/ports/0/port", "value": 80},
        {"op": "replace", "path": "/spec/ports/0/port", "value": 82}]);
    let patched = apply(kind, PatchType::Json, &current, &operations).unwrap();
    assert_eq!(patched["spec"]["ports"][0]["port"], 82);
    let failed = apply(kind, PatchType::Json, &patched, &operations).unwrap_err();
    assert_eq!((failed.code, failed.reason), (422, "Invalid"));
    assert_eq!(
        apply(kind, PatchType::Json, &current, &json!({"a": 1}))
            .unwrap_err()
            .code,
        400
    );
    assert_eq!(
        apply(kind, PatchType::Merge, &current, &json!([]))
            .unwrap_err()
            .code,
        400
    );
    assert_eq!(
        PatchType::from_content_type("application/apply-patch+yaml"),
        None
    );
}
