use serde_json::json;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn times_are_written_as_kubernetes_does() {
    let time = at("2026-11-21T12:00:01.234567Z");
    assert_eq!(format_time(time), "2026-11-21T12:00:01Z");
}

#[test]
fn generated_names_fit_a_label() {
    assert_eq!(generated_name("web-", [0, 1, 26, 27, 255]), "web-bc9bq");
    assert_eq!(generated_name(&"x".repeat(80), [0; 5]).len(), 63);
}

#[test]
fn deletion_is_marked_once_and_may_be_shortened() {
    let mut object = json!({"metadata": {"generation": 3}});
    mark_deleted(&mut object, at("2026-01-01T00:00:00Z"), 30);
    assert_eq!(generation(&object), 4);
    assert_eq!(
        object["metadata"]["deletionTimestamp"],
        "2026-01-01T00:00:30Z"
    );
    mark_deleted(&mut object, at("2026-01-01T00:00:10Z"), 60);
    assert_eq!(
        object["metadata"]["deletionTimestamp"],
        "2026-01-01T00:00:30Z"
    );
    mark_deleted(&mut object, at("2026-01-01T00:00:10Z"), 0);
    assert_eq!(
        object["metadata"]["deletionTimestamp"],
        "2026-01-01T00:00:10Z"
    );
    assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(generation(&object), 4);
}

#[test]
fn a_new_object_takes_nothing_from_the_client_but_its_content() {
    let mut object = json!({"metadata": {"creationTimestamp": null, "uid": "forged", "deletionTimestamp": "x",
        "namespace": "n", "labels": {"a": "b"}}});
    stamp_new(&mut object, None, "n1", "u1", at("2026-01-01T00:00:00Z"));
    let expected = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "u1", "name": "n1",
        "labels": {"a": "b"}}});
    assert_eq!(object, expected);
}

#[test]
fn a_write_that_changes_only_the_version_changes_nothing() {
    let old = json!({"metadata": {"resourceVersion": "1", "name": "a"}, "spec": {"x": 1}});
    let mut new = json!({"metadata": {"resourceVersion": "2", "name": "a"}, "spec": {"x": 1}});
    assert!(unchanged(&new, &old));
    new["spec"]["x"] = 2.into();
    assert!(!unchanged(&new, &old));
    new["spec"]["x"] = 1.into();
    new["metadata"]["labels"] = json!({"a": "b"});
    assert!(!unchanged(&new, &old));
    let gone = json!({"metadata": {"name": "a"}});
    assert!(!unchanged(&gone, &old));
    assert!(!unchanged(&old, &gone));
}

#[test]
fn owners_and_finalizers() {
    let mut object = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}]}});
    assert_eq!(controller(&object).unwrap().name, "r");
    add_finalizer(&mut object, "orphan");
    add_finalizer(&mut object, "orphan");
    assert_eq!(finalizers(&object).collect::<Vec<_>>(), ["orphan"]);
    remove_finalizer(&mut object, "orphan");
    assert!(object["metadata"].get("finalizers").is_none());
}
