use serde_json::Value;

use super::*;
use crate::fixture::World;
use crate::object::Kind;

fn owned_by(kind: &str, name: &str, uid: &str) -> Value {
    let api = if kind == "ReplicaSet" {
        "apps/v1"
    } else {
        "v1"
    };
    json!({"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true})
}

fn set(world: &mut World, meta: &Value) -> ObjRef {
    let mut document = json!({"metadata": {"name": "owner"}, "spec": {"selector": {}}});
    for (name, value) in meta.as_object().unwrap() {
        document["metadata"][name] = value.clone();
    }
    world.put(Kind::ReplicaSet, document)
}

fn pod(world: &mut World, owners: &[Value]) -> ObjRef {
    world.put(
        Kind::Pod,
        json!({"metadata": {"name": "pod", "ownerReferences": owners}, "spec": {"containers": []}}),
    )
}

fn ops(plan: Plan) -> Vec<Op> {
    plan.steps.into_iter().map(|step| step.op).collect()
}

#[test]
fn an_object_goes_when_its_owner_has_gone_but_not_unasked() {
    let mut world = World::default();
    let pod = pod(&mut world, &[owned_by("ReplicaSet", "owner", "old")]);
    let planned = ops(world.plan(&mut GarbageCollector, &pod));
    assert!(matches!(&planned[0], Op::VerifyAbsent { uid: Some(uid), .. } if uid == "old"));
    assert!(matches!(
        &planned[1],
        Op::Delete {
            propagation: Propagation::Background,
            ..
        }
    ));
    // A successor of the same name is not the owner.
    set(&mut world, &json!({}));
    assert_eq!(ops(world.plan(&mut GarbageCollector, &pod)).len(), 2);
}

#[test]
fn an_object_with_a_living_owner_stays() {
    let mut world = World::default();
    let owner = set(&mut world, &json!({}));
    let uid = world.uid(&owner);
    let alive = owned_by("ReplicaSet", "owner", &uid);
    let both = pod(
        &mut world,
        &[alive.clone(), owned_by("ReplicaSet", "gone", "x")],
    );
    let planned = ops(world.plan(&mut GarbageCollector, &both));
    let Op::Patch { body, .. } = &planned[1] else {
        panic!("{planned:?}")
    };
    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], uid);
    assert_eq!(
        body["metadata"]["ownerReferences"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let one = pod(&mut world, &[alive]);
    assert!(world.plan(&mut GarbageCollector, &one).steps.is_empty());
}

#[test]
fn owners_of_foreign_kinds_are_nobodys_business() {
    let mut world = World::default();
    let pod = pod(&mut world, &[owned_by("Widget", "w", "x")]);
    assert!(world.plan(&mut GarbageCollector, &pod).steps.is_empty());
}

#[test]
fn foreground_waits_for_blocking_dependents() {
    let mut world = World::default();
    let owner = set(
        &mut world,
        &json!({"finalizers": [FOREGROUND], "deletionTimestamp": "2024-01-01T00:00:00Z"}),
    );
    let uid = world.uid(&owner);
    let pod = pod(&mut world, &[owned_by("ReplicaSet", "owner", &uid)]);
    assert!(world.plan(&mut GarbageCollector, &owner).steps.is_empty());
    let planned = ops(world.plan(&mut GarbageCollector, &pod));
    assert!(matches!(&planned[..], [Op::Delete { .. }]), "{planned:?}");
    world.remove(&pod);
    world.step(&mut GarbageCollector, &owner);
    assert!(world.state.object(&owner).is_none());
}

#[test]
fn orphaned_dependents_forget_their_owner() {
    let mut world = World::default();
    let owner = set(
        &mut world,
        &json!({"finalizers": [ORPHAN], "deletionTimestamp": "2024-01-01T00:00:00Z"}),
    );
    let uid = world.uid(&owner);
    let pod = pod(&mut world, &[owned_by("ReplicaSet", "owner", &uid)]);
    world.step(&mut GarbageCollector, &owner);
    assert!(world.state.object(&owner).is_none());
    assert!(world.plan(&mut GarbageCollector, &pod).steps.is_empty());
    assert_eq!(
        world.state.object(&pod).unwrap().meta().owner_references,
        Some(vec![])
    );
}

#[test]
fn a_change_touches_whom_it_may_concern() {
    let mut world = World::default();
    let owner = set(&mut world, &json!({}));
    let uid = world.uid(&owner);
    let pod = pod(&mut world, &[owned_by("ReplicaSet", "owner", &uid)]);
    let gone = Change {
        old: world.state.object(&owner).cloned(),
        new: None,
    };
    assert_eq!(
        GarbageCollector.touched(&gone, &world.state),
        std::slice::from_ref(&pod)
    );
    world.patch(&owner, &json!({"metadata": {"finalizers": [FOREGROUND], "deletionTimestamp": "2024-01-01T00:00:00Z"}}));
    let dependent_gone = Change {
        old: world.state.object(&pod).cloned(),
        new: None,
    };
    assert_eq!(
        GarbageCollector.touched(&dependent_gone, &world.state),
        [owner]
    );
}
