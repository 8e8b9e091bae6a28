use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::fixture::{World, running};

fn set(world: &mut World, replicas: i32) -> ObjRef {
    world.put(
        Kind::ReplicaSet,
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
        }),
    )
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "calls read better without references"
)]
fn pod(world: &mut World, owner: &ObjRef, name: &str, spec: Value, status: Value) -> ObjRef {
    let owner = owner::controlled_by(world.state.object(owner).unwrap());
    let mut document = json!({
        "metadata": {"name": name, "labels": {"app": "web"}, "ownerReferences": [owner]},
        "spec": {"containers": []},
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        document["spec"][field] = value.clone();
    }
    world.put(Kind::Pod, document)
}

fn deleted(plan: &Plan) -> Vec<String> {
    let ops = plan.steps.iter();
    ops.filter_map(|step| match &step.op {
        Op::Delete { at, .. } => Some(at.key.name.to_string()),
        _ => None,
    })
    .collect()
}

#[test]
fn missing_pods_are_created_once() {
    let mut world = World::default();
    set(&mut world, 3);
    let mut sets = ReplicaSets::default();
    world.settle(&mut sets, Kind::ReplicaSet);
    let pods: Vec<_> = world.state.all::<Pod>().cloned().collect();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(owner::controller_of(&pod.metadata).unwrap().name, "web");
        assert_eq!(pod.metadata.labels.as_ref().unwrap()["app"], "web");
    }
}

#[test]
fn the_least_useful_pods_go_first() {
    let mut world = World::default();
    let at = set(&mut world, 7);
    let on = |node: &str| json!({"nodeName": node});
    let mut put = |name: &str, spec: Value, status: Value| pod(&mut world, &at, name, spec, status);
    put("crowded-a", on("n1"), running("10.0.0.1", true));
    put("crowded-b", on("n1"), running("10.0.0.2", true));
    put("alone", on("n2"), running("10.0.0.3", true));
    put("unready", on("n3"), running("10.0.0.4", false));
    put("pending", on("n4"), json!({"phase": "Pending"}));
    put("unbound", json!({}), json!({}));
    put("ended", on("n5"), json!({"phase": "Failed"}));
    let mut order = Vec::new();
    for replicas in (1..6).rev() {
        world.patch(&at, &json!({"spec": {"replicas": replicas}}));
        let plan = world.plan(&mut ReplicaSets::default(), &at);
        let gone: BTreeSet<String> = deleted(&plan).into_iter().collect();
        order.extend(
            gone.into_iter()
                .filter(|name| !order.contains(name))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(
        order,
        ["unbound", "pending", "unready", "crowded-a", "crowded-b"]
    );
}

#[test]
fn orphans_are_adopted_and_strangers_released() {
    let mut world = World::default();
    let at = set(&mut world, 1);
    let orphan =
        json!({"metadata": {"name": "o", "labels": {"app": "web"}}, "spec": {"containers": []}});
    let orphan = world.put(Kind::Pod, orphan);
    let stranger = pod(&mut world, &at, "s", json!({}), json!({}));
    world.patch(
        &stranger,
        &json!({"metadata": {"labels": {"app": "other"}}}),
    );
    world.settle(&mut ReplicaSets::default(), Kind::ReplicaSet);
    let owners = |at: &ObjRef| {
        world
            .state
            .object(at)
            .unwrap()
            .meta()
            .owner_references
            .clone()
    };
    assert_eq!(owners(&orphan).unwrap()[0].name, "web");
    assert_eq!(owners(&stranger), Some(vec![]));
    assert_eq!(world.count::<Pod>(), 2);
}

#[test]
fn a_refusal_becomes_a_condition_and_goes_with_its_cause() {
    let mut world = World::default();
    let at = set(&mut world, 1);
    let mut sets = ReplicaSets::default();
    let create = world.plan(&mut sets, &at).steps.pop().unwrap().op;
    let event = sets.failed(&at, &create, "no room", &world.state).unwrap();
    assert_eq!(
        (event.reason, &*event.message),
        ("FailedCreate", "Error creating: no room")
    );
    let conditions = |world: &World| {
        let set = world.state.get::<ReplicaSet>(&at.key).unwrap();
        set.status.clone().unwrap().conditions.unwrap_or_default()
    };
    world.step(&mut sets, &at);
    assert_eq!(conditions(&world)[0].message.as_deref(), Some("no room"));
    world.settle(&mut sets, Kind::ReplicaSet);
    assert!(conditions(&world).is_empty());
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut world = World::default();
    let at = set(&mut world, 1);
    world.patch(&at, &json!({"spec": {"minReadySeconds": 30}}));
    let since = world.clock().wall.to_string();
    let mut status = running("10.0.0.1", true);
    status["conditions"][0]["lastTransitionTime"] = json!(since);
    pod(&mut world, &at, "p", json!({"nodeName": "n"}), status);
    let plan = world.step(&mut ReplicaSets::default(), &at);
    assert_eq!(plan.again_in.unwrap().as_secs(), 30);
    let available = |world: &World| {
        let set = world.state.get::<ReplicaSet>(&at.key).unwrap();
        set.status.clone().unwrap().available_replicas
    };
    assert_eq!(available(&world), Some(0));
    world.now += std::time::Duration::from_secs(30);
    world.step(&mut ReplicaSets::default(), &at);
    assert_eq!(available(&world), Some(1));
}

proptest! {
    #[test]
    fn whatever_was_there_as_many_run_as_asked(
        replicas in 0..8_i32,
        phases in prop::collection::vec((0..4_usize, any::<bool>(), any::<bool>()), 0..10),
    ) {
        let mut world = World::default();
        let at = set(&mut world, replicas);
        for (i, (phase, bound, going)) in phases.iter().enumerate() {
            let phase = ["Pending", "Running", "Failed", "Succeeded"][*phase];
            let spec = if *bound { json!({"nodeName": "n"}) } else { json!({}) };
            let at = pod(&mut world, &at, &format!("p{i}"), spec, json!({"phase": phase}));
            if *going {
                world.patch(&at, &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}));
            }
        }
        world.settle(&mut ReplicaSets::default(), Kind::ReplicaSet);
        let active = world.state.all::<Pod>();
        let active = active.filter(|pod| !pods::is_finished(pod) && !pods::is_terminating(pod));
        prop_assert_eq!(active.count(), usize::try_from(replicas).unwrap());
    }
}
