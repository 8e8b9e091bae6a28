use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::fixture::{World, node};

#[expect(
    clippy::needless_pass_by_value,
    reason = "calls read better without references"
)]
fn pod(world: &mut World, name: &str, spec: Value, owner: Option<&str>) -> ObjRef {
    let mut document = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}});
    for (field, value) in spec.as_object().unwrap() {
        document["spec"][field] = value.clone();
    }
    if let Some(owner) = owner {
        document["metadata"]["ownerReferences"] = json!([
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}
        ]);
    }
    world.put(Kind::Pod, document)
}

/// Pods on each node.
fn spread(world: &World) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for node in world.state.all::<Pod>().filter_map(|p| pods::node_name(p)) {
        *spread.entry(node.to_owned()).or_default() += 1;
    }
    spread
}

/// Why a Pod with `spec` does not get the one node, changed by `node_patch`; `None` if it does.
fn verdict(node_patch: &Value, spec: Value) -> Option<String> {
    let mut world = World::default();
    let at = world.put(Kind::Node, node("n1"));
    world.patch(&at, node_patch);
    let other = json!({"nodeName": "n1", "containers": [{"name": "c",
        "ports": [{"containerPort": 80, "hostPort": 80}], "resources": {"requests": {"cpu": "1500m"}}}]});
    pod(&mut world, "other", other, None);
    let key = pod(&mut world, "p", spec, None);
    let plan = world.step(&mut Scheduler, &key);
    let message = plan.events.first().map(|event| event.message.clone());
    let bound = world
        .state
        .get::<Pod>(&key.key)
        .and_then(|p| pods::node_name(p).map(str::to_owned));
    assert_eq!(bound.is_none(), message.is_some());
    message.map(|m| m.replace("0/1 nodes are available: 1 ", ""))
}

#[test]
fn reasons_are_those_of_kubernetes() {
    let none = json!({});
    let taint = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let exists = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    let request =
        |what: Value| json!({"containers": [{"name": "c", "resources": {"requests": what}}]});
    let port = |n: u16, ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": n, "hostIP": ip}]}]});
    let affinity = |value: &str| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": [value]}]}]}}}})
    };
    let ssd = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let mismatch = Some("node(s) didn't match Pod's node affinity/selector.");
    let taken = Some("node(s) didn't have free ports for the requested pod ports.");
    for (node_patch, spec, expected) in [
        (&none, json!({}), None),
        (
            &taint,
            json!({}),
            Some("node(s) had untolerated taint {k: v}."),
        ),
        (&taint, exists, None),
        (
            &json!({"spec": {"unschedulable": true}}),
            json!({}),
            Some("node(s) were unschedulable."),
        ),
        (
            &json!({"status": {"conditions": []}}),
            json!({}),
            Some("node(s) were not ready."),
        ),
        (&none, json!({"nodeSelector": {"disk": "ssd"}}), mismatch),
        (&ssd, json!({"nodeSelector": {"disk": "ssd"}}), None),
        (&ssd, affinity("ssd"), None),
        (&ssd, affinity("hdd"), mismatch),
        (&none, port(80, ""), taken),
        (&none, port(80, "10.0.0.1"), taken),
        (&none, port(81, ""), None),
        (&none, request(json!({"cpu": "500m"})), None),
        (
            &none,
            request(json!({"cpu": "501m"})),
            Some("Insufficient cpu."),
        ),
        (
            &none,
            request(json!({"memory": "5Gi"})),
            Some("Insufficient memory."),
        ),
        (
            &none,
            request(json!({"example.com/gpu": "1"})),
            Some("Insufficient example.com/gpu."),
        ),
        (
            &json!({"status": {"allocatable": {"pods": "1"}}}),
            json!({}),
            Some("Too many pods."),
        ),
    ] {
        let found = verdict(node_patch, spec.clone());
        assert_eq!(found.as_deref(), expected, "{node_patch} {spec}");
    }
}

#[test]
fn replicas_land_on_different_nodes() {
    let mut world = World::default();
    for name in ["n1", "n2", "n3"] {
        world.put(Kind::Node, node(name));
    }
    // n3 is much fuller, with Pods of others; spreading counts for more.
    for i in 0..20 {
        pod(
            &mut world,
            &format!("x{i}"),
            json!({"nodeName": "n3"}),
            None,
        );
    }
    for i in 0..3 {
        pod(&mut world, &format!("web{i}"), json!({}), Some("web"));
    }
    world.settle(&mut Scheduler, Kind::Pod);
    assert_eq!(
        spread(&world),
        [("n1".into(), 1), ("n2".into(), 1), ("n3".into(), 21)].into()
    );
}

#[test]
fn many_pods_fill_nodes_evenly_and_no_further_than_they_hold() {
    let mut world = World::default();
    for name in ["n1", "n2"] {
        let mut node = node(name);
        node["status"]["allocatable"]["pods"] = json!("10");
        world.put(Kind::Node, node);
    }
    for i in 0..25 {
        pod(
            &mut world,
            &format!("p{i:02}"),
            json!({}),
            (i % 2 == 0).then_some("web"),
        );
    }
    world.settle(&mut Scheduler, Kind::Pod);
    assert_eq!(
        spread(&world),
        [("n1".into(), 10), ("n2".into(), 10)].into()
    );
    let waiting = waiting(&world.state);
    assert_eq!(waiting.len(), 5);
    let pod = world.state.get::<Pod>(&waiting[0].key).unwrap();
    let condition = pods::condition(pod, "PodScheduled").unwrap();
    assert_eq!(
        condition.message.as_deref(),
        Some("0/2 nodes are available: 2 Too many pods.")
    );
    assert_eq!(condition.reason.as_deref(), Some("Unschedulable"));
}

#[test]
fn who_waits_is_asked_again_when_room_is_made_and_not_at_heartbeats() {
    let mut world = World::default();
    let n1 = world.put(Kind::Node, node("n1"));
    let waiting = pod(&mut world, "p", json!({"nodeSelector": {"a": "b"}}), None);
    let bound = pod(&mut world, "q", json!({"nodeName": "n1"}), None);
    let old = world.state.object(&n1).cloned();
    let beat = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2024-01-01T00:00:00Z"}]}});
    world.patch(&n1, &beat);
    let new = world.state.object(&n1).cloned();
    assert!(
        Scheduler
            .touched(
                &Change {
                    old: old.clone(),
                    new
                },
                &world.state
            )
            .is_empty()
    );
    world.patch(&n1, &json!({"metadata": {"labels": {"a": "b"}}}));
    let new = world.state.object(&n1).cloned();
    assert_eq!(
        Scheduler.touched(&Change { old, new }, &world.state),
        std::slice::from_ref(&waiting)
    );
    let gone = Change {
        old: world.state.object(&bound).cloned(),
        new: None,
    };
    assert_eq!(Scheduler.touched(&gone, &world.state), [waiting]);
}

#[test]
fn pods_of_other_schedulers_and_gated_ones_are_left_alone() {
    let mut world = World::default();
    world.put(Kind::Node, node("n1"));
    pod(&mut world, "a", json!({"schedulerName": "mine"}), None);
    pod(
        &mut world,
        "b",
        json!({"schedulingGates": [{"name": "wait"}]}),
        None,
    );
    world.settle(&mut Scheduler, Kind::Pod);
    assert!(spread(&world).is_empty());
}
