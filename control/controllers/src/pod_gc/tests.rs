use serde_json::json;

use super::*;
use crate::fixture::{World, node};

#[test]
fn pods_of_a_node_that_does_not_exist_go_after_a_while() {
    let mut world = World::default();
    let mut controller = OrphanedPods::new(&ControllersConfig::default());
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": []}});
    let pod = world.put(Kind::Pod, pod);
    let key = ObjRef::new(Kind::Node, "", "n1");
    let plan = world.step(&mut controller, &key);
    assert_eq!(
        (plan.steps.len(), plan.again_in),
        (0, Some(Duration::from_secs(40)))
    );
    // The node comes back in time, and goes again.
    let n1 = world.put(Kind::Node, node("n1"));
    world.now += Duration::from_secs(30);
    assert_eq!(world.step(&mut controller, &key), Plan::default());
    world.remove(&n1);
    world.now += Duration::from_secs(30);
    assert_eq!(
        world.step(&mut controller, &key).again_in,
        Some(Duration::from_secs(40))
    );
    world.now += Duration::from_secs(40);
    world.step(&mut controller, &key);
    assert!(world.state.object(&pod).is_none());
}
