use serde_json::json;

use super::*;
use crate::fixture::{World, node, running};
use crate::plan::Op;

struct Scene {
    world: World,
    controller: NodeLifecycle,
    n1: ObjRef,
}

const GRACE: Duration = Duration::from_secs(50);
const SECOND: Duration = Duration::from_secs(1);

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            world: World::default(),
            controller: NodeLifecycle::new(&ControllersConfig::default()),
            n1: ObjRef::new(Kind::Node, "", "n1"),
        };
        scene.world.put(Kind::Node, node("n1"));
        scene.world.put(Kind::Node, node("n2"));
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": []},
            "status": running("10.0.0.1", true)});
        scene.world.put(Kind::Pod, pod);
        scene.beat("2023-11-14T00:00:01Z");
        scene
    }

    fn beat(&mut self, time: &str) {
        let lease =
            json!({"metadata": {"name": "n1", "namespace": LEASES}, "spec": {"renewTime": time}});
        self.world.put(Kind::Lease, lease);
        self.work();
    }

    /// Lets time pass, then the controller work.
    fn pass(&mut self, time: Duration) {
        self.world.now += time;
        self.work();
    }

    fn work(&mut self) {
        let n1 = self.n1.clone();
        for _ in 0..5 {
            self.world.step(&mut self.controller, &n1);
        }
    }

    fn taints(&self) -> Vec<String> {
        let node = self.world.state.get::<Node>(&self.n1.key).unwrap();
        let taints = node
            .spec
            .as_ref()
            .and_then(|s| s.taints.clone())
            .unwrap_or_default();
        taints
            .iter()
            .map(|t| {
                format!(
                    "{}:{}",
                    t.key.trim_start_matches("node.kubernetes.io/"),
                    t.effect
                )
            })
            .collect()
    }

    fn ready(&self) -> String {
        let node = self.world.state.get::<Node>(&self.n1.key).unwrap();
        marks::ready(node).unwrap().status.clone()
    }

    fn pod(&self) -> Option<std::sync::Arc<k8s_openapi::api::core::v1::Pod>> {
        self.world.state.get(&Key::new("ns", "p")).cloned()
    }

    fn evicted(&self) -> bool {
        self.pod().is_none_or(|pod| pods::is_terminating(&pod))
    }
}

#[test]
fn a_lease_that_changes_keeps_a_node_whatever_time_it_says() {
    let mut scene = Scene::new();
    // The node's clock is years off, and runs backwards; it is alive all the same.
    for second in (0..20).rev() {
        scene.world.now += GRACE - SECOND;
        scene.beat(&format!("1999-01-01T00:00:{second:02}Z"));
        assert_eq!((scene.ready(), scene.taints()), ("True".into(), vec![]));
    }
}

#[test]
fn silence_marks_the_node_and_its_pods_and_then_evicts() {
    let mut scene = Scene::new();
    scene.pass(GRACE - SECOND);
    assert_eq!(scene.ready(), "True");
    scene.pass(SECOND);
    assert_eq!(scene.ready(), "Unknown");
    assert_eq!(
        scene.taints(),
        ["unreachable:NoSchedule", "unreachable:NoExecute"]
    );
    let pod = scene.pod().unwrap();
    assert!(!pods::is_ready(&pod) && !scene.evicted());
    scene.pass(Duration::from_secs(299));
    assert!(!scene.evicted());
    scene.pass(SECOND * 2);
    assert!(scene.evicted());
}

#[test]
fn a_node_that_returns_in_time_keeps_its_pods() {
    let mut scene = Scene::new();
    scene.pass(GRACE);
    scene.pass(Duration::from_secs(200));
    scene.world.patch(
        &scene.n1.clone(),
        &json!({"status": {"conditions": [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": "2023-11-14T01:00:00Z"}]}}),
    );
    scene.beat("2023-11-14T01:00:00Z");
    assert_eq!((scene.ready(), scene.taints()), ("True".into(), vec![]));
    scene.world.now += Duration::from_secs(40);
    scene.beat("2023-11-14T01:00:40Z");
    // Lost again: the full time counts anew.
    scene.pass(GRACE);
    scene.pass(Duration::from_secs(299));
    assert!(!scene.evicted());
}

#[test]
fn a_lease_without_the_nodes_own_word_does_not_make_it_ready() {
    let mut scene = Scene::new();
    scene.pass(GRACE);
    scene.beat("2023-11-14T01:00:00Z");
    assert_eq!(scene.ready(), "Unknown");
}

#[test]
fn own_taints_come_and_go_and_others_stay() {
    let mut scene = Scene::new();
    let n1 = scene.n1.clone();
    let admission = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        {"key": "dedicated", "value": "db", "effect": "NoExecute"}]);
    scene.world.patch(
        &n1,
        &json!({"spec": {"taints": admission, "unschedulable": true}}),
    );
    scene.work();
    assert_eq!(
        scene.taints(),
        ["dedicated:NoExecute", "unschedulable:NoSchedule"]
    );
    scene
        .world
        .patch(&n1, &json!({"spec": {"unschedulable": null}}));
    scene.work();
    assert_eq!(scene.taints(), ["dedicated:NoExecute"]);
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    scene.world.patch(&n1, &not_ready);
    scene.work();
    assert_eq!(
        scene.taints(),
        [
            "dedicated:NoExecute",
            "not-ready:NoSchedule",
            "not-ready:NoExecute"
        ]
    );
}

#[test]
fn tolerations_decide_how_long_a_pod_stays() {
    for (tolerations, stays) in [
        (
            json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 5}]),
            Some(5),
        ),
        (json!([{"operator": "Exists"}]), None),
        (json!([]), Some(300)),
    ] {
        let mut scene = Scene::new();
        let at = ObjRef::new(Kind::Pod, "ns", "p");
        scene
            .world
            .patch(&at, &json!({"spec": {"tolerations": tolerations}}));
        scene.pass(GRACE);
        scene.pass(Duration::from_secs(stays.unwrap_or(100_000) - 1));
        assert!(!scene.evicted(), "{tolerations}");
        scene.pass(SECOND * 2);
        assert_eq!(scene.evicted(), stays.is_some(), "{tolerations}");
    }
}

#[test]
fn nobody_is_evicted_while_no_node_is_well() {
    let mut scene = Scene::new();
    let n2 = ObjRef::new(Kind::Node, "", "n2");
    let unknown = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    scene.world.patch(&n2, &unknown);
    scene.pass(GRACE);
    for _ in 0..100 {
        scene.pass(GRACE);
    }
    assert!(!scene.evicted());
    // Another is well again: from now on the time counts.
    let well = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    scene.world.patch(&n2, &well);
    scene.pass(Duration::from_secs(299));
    assert!(!scene.evicted());
    scene.pass(SECOND * 2);
    assert!(scene.evicted());
}

#[test]
fn a_node_that_never_reported_is_told_so_and_not_unreachable_before() {
    let mut scene = Scene::new();
    let n1 = scene.n1.clone();
    scene
        .world
        .patch(&n1, &json!({"status": {"conditions": null}}));
    scene.work();
    assert_eq!(scene.taints(), ["not-ready:NoSchedule"]);
    scene.world.now += GRACE;
    let plan = scene.world.plan(&mut scene.controller, &n1);
    assert!(
        matches!(&plan.steps[0].op, Op::Patch { body, subresource: "status", .. }
        if body["status"]["conditions"][0]["reason"] == "NodeStatusNeverUpdated")
    );
}
