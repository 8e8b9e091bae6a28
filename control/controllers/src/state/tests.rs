use serde_json::json;

use super::*;

fn pod(revision: u64, uid: &str, node: Option<&str>) -> Object {
    let value = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": uid, "resourceVersion": revision.to_string(),
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "o", "uid": "owner"}]},
        "spec": {"nodeName": node, "containers": []},
    });
    Object::from_value(Kind::Pod, value).unwrap()
}

const T0: Duration = Duration::ZERO;

fn at() -> ObjRef {
    ObjRef::new(Kind::Pod, "ns", "p")
}

#[test]
fn an_own_write_is_seen_at_once_and_old_news_does_not_undo_it() {
    let mut state = State::default();
    assert!(state.observed(pod(1, "u", None)).is_some());
    assert!(state.wrote(pod(5, "u", Some("n1")), T0).is_some());
    assert!(state.observed(pod(3, "u", None)).is_none());
    assert_eq!(state.pods_on("n1").count(), 1);
    // The watch confirms: no change to tell of.
    assert!(state.observed(pod(5, "u", Some("n1"))).is_none());
    assert!(state.sweep(Duration::from_secs(100)).is_empty());
}

#[test]
fn a_deleted_object_is_not_brought_back_by_old_news() {
    let mut state = State::default();
    state.observed(pod(1, "u", Some("n1")));
    assert!(state.deleted(&at(), "u", T0).is_some());
    assert!(state.observed(pod(2, "u", Some("n1"))).is_none());
    assert_eq!(
        (
            state.pods_on("n1").count(),
            state.dependents("owner").count()
        ),
        (0, 0)
    );
    // A successor of the same name is another object.
    assert!(state.observed(pod(4, "v", None)).is_some());
    assert!(state.vanished(&pod(3, "u", None), T0).is_none());
    assert!(state.object(&at()).is_some());
}

#[test]
fn the_late_answer_to_an_own_write_does_not_bring_back_what_vanished() {
    let mut state = State::default();
    state.observed(pod(1, "u", None));
    assert!(state.vanished(&pod(3, "u", None), T0).is_some());
    assert!(state.wrote(pod(2, "u", None), T0).is_none());
    assert_eq!(state.dependents("owner").count(), 0);
    // What the tombstone costs is given back.
    state.sweep(Duration::from_secs(61));
    assert!(state.tombstones.is_empty());
}

#[test]
fn indexes_follow_changes() {
    let mut state = State::default();
    state.observed(pod(1, "u", Some("n1")));
    state.observed(pod(2, "u", Some("n2")));
    assert_eq!(
        (state.pods_on("n1").count(), state.pods_on("n2").count()),
        (0, 1)
    );
    assert_eq!(state.owned::<Pod>("owner").count(), 1);
    state.vanished(&pod(3, "u", Some("n2")), T0);
    assert_eq!(
        (
            state.pods_on("n2").count(),
            state.owned::<Pod>("owner").count()
        ),
        (0, 0)
    );
}

#[test]
fn a_relist_drops_what_it_does_not_name_except_newer_own_writes() {
    let mut state = State::default();
    state.observed(pod(1, "u", None));
    let gone = state.relisted(Kind::Pod, Vec::new());
    assert!(matches!(
        &gone[..],
        [Change {
            old: Some(_),
            new: None
        }]
    ));
    state.wrote(pod(7, "v", None), T0);
    assert!(state.relisted(Kind::Pod, Vec::new()).is_empty());
    assert!(state.object(&at()).is_some());
    // But not for ever, if no watch ever tells of it.
    assert_eq!(state.sweep(Duration::from_secs(61)).len(), 1);
    assert!(state.object(&at()).is_none());
}
