use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::fixture::{World, running};
use crate::replicaset::ReplicaSets;

fn deployment(world: &mut World, replicas: i32, surge: i32, unavailable: i32) -> ObjRef {
    world.put(
        Kind::Deployment,
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]},
                },
            },
        }),
    )
}

fn image(version: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": version}]}}}})
}

fn work(world: &mut World) {
    for _ in 0..20 {
        world.settle(&mut Deployments, Kind::Deployment);
        world.settle(&mut ReplicaSets::default(), Kind::ReplicaSet);
    }
}

/// Every Pod of a present ReplicaSet comes up, every Pod that goes is gone.
fn agents(world: &mut World, chosen: impl Fn(usize) -> bool) {
    let pods: Vec<Arc<Pod>> = world.state.all::<Pod>().cloned().collect();
    for (i, pod) in pods.iter().enumerate() {
        let at = ObjRef {
            kind: Kind::Pod,
            key: Key::of(&pod.metadata),
        };
        if pods::is_terminating(pod) {
            world.remove(&at);
        } else if chosen(i) && !pods::is_ready(pod) {
            let up = json!({"spec": {"nodeName": "n"}, "status": running("10.0.0.1", true)});
            world.patch(&at, &up);
        }
    }
}

fn rolled_out(world: &mut World) {
    for _ in 0..40 {
        work(world);
        agents(world, |_| true);
    }
    work(world);
}

fn sets(world: &World) -> Vec<(i64, i32)> {
    let sets = world.state.all::<ReplicaSet>();
    let mut sets: Vec<(i64, i32)> = sets
        .map(|set| (revision::of(&set.metadata), view::replicas(set)))
        .collect();
    sets.sort_unstable();
    sets
}

fn progressing(world: &World, at: &ObjRef) -> (String, String) {
    let status = world
        .state
        .get::<Deployment>(&at.key)
        .unwrap()
        .status
        .clone()
        .unwrap();
    let conditions = status.conditions.unwrap();
    let found = conditions
        .into_iter()
        .find(|c| c.type_ == "Progressing")
        .unwrap();
    (found.status, found.reason.unwrap())
}

#[test]
fn a_rollout_and_back_again_keep_two_sets() {
    let mut world = World::default();
    let at = deployment(&mut world, 3, 1, 0);
    rolled_out(&mut world);
    assert_eq!(sets(&world), [(1, 3)]);
    assert_eq!(
        progressing(&world, &at),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
    world.patch(&at, &image("v2"));
    rolled_out(&mut world);
    assert_eq!(sets(&world), [(1, 0), (2, 3)]);
    world.patch(&at, &image("v1"));
    rolled_out(&mut world);
    assert_eq!(sets(&world), [(2, 0), (3, 3)]);
    let back = world
        .state
        .all::<ReplicaSet>()
        .find(|s| view::replicas(s) == 3)
        .unwrap();
    let history = owner::annotation(&back.metadata, "deployment.kubernetes.io/revision-history");
    assert_eq!(history, Some("1"));
}

#[test]
fn old_sets_beyond_the_limit_are_deleted() {
    let mut world = World::default();
    let at = deployment(&mut world, 1, 1, 0);
    world.patch(&at, &json!({"spec": {"revisionHistoryLimit": 1}}));
    for version in ["v1", "v2", "v3", "v4"] {
        world.patch(&at, &image(version));
        rolled_out(&mut world);
    }
    assert_eq!(sets(&world), [(3, 0), (4, 1)]);
}

#[test]
fn a_stuck_rollout_is_told_after_the_deadline() {
    let mut world = World::default();
    let at = deployment(&mut world, 1, 1, 0);
    world.patch(&at, &json!({"spec": {"progressDeadlineSeconds": 60}}));
    work(&mut world);
    let plan = world.plan(&mut Deployments, &at);
    assert_eq!(plan.again_in.unwrap().as_secs(), 60);
    world.now += std::time::Duration::from_secs(60);
    work(&mut world);
    assert_eq!(
        progressing(&world, &at),
        ("False".into(), "ProgressDeadlineExceeded".into())
    );
    // The Pod comes up after all.
    rolled_out(&mut world);
    assert_eq!(
        progressing(&world, &at),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::default();
    let at = deployment(&mut world, 2, 1, 0);
    rolled_out(&mut world);
    world.patch(&at, &json!({"spec": {"paused": true, "replicas": 4}}));
    world.patch(&at, &image("v2"));
    rolled_out(&mut world);
    assert_eq!(sets(&world), [(1, 4)]);
    assert_eq!(progressing(&world, &at).1, "DeploymentPaused");
    world.patch(&at, &json!({"spec": {"paused": false}}));
    rolled_out(&mut world);
    assert_eq!(sets(&world), [(1, 0), (2, 4)]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    let mut world = World::default();
    let at = deployment(&mut world, 10, 3, 2);
    rolled_out(&mut world);
    world.patch(&at, &image("v2"));
    work(&mut world);
    let before = sets(&world);
    assert_eq!(before, [(1, 8), (2, 5)]);
    world.patch(&at, &json!({"spec": {"replicas": 20}}));
    work(&mut world);
    let after = sets(&world);
    let total: i32 = after.iter().map(|(_, n)| n).sum();
    assert_eq!(total, 23, "{after:?}");
    assert!(after[0].1 > 8 && after[1].1 > 5, "{after:?}");
}

#[test]
fn a_name_that_is_taken_gets_another_salt() {
    let mut world = World::default();
    let at = deployment(&mut world, 1, 1, 0);
    let first = world.plan(&mut Deployments, &at);
    let Op::Create { at: name, .. } = &first.steps[0].op else {
        panic!("{first:?}")
    };
    let foreign = json!({"metadata": {"name": &*name.key.name}, "spec": {"selector": {"matchLabels": {"x": "y"}}}});
    world.put(Kind::ReplicaSet, foreign);
    world.settle(&mut Deployments, Kind::Deployment);
    assert_eq!(world.count::<ReplicaSet>(), 2);
    let status = world
        .state
        .get::<Deployment>(&at.key)
        .unwrap()
        .status
        .clone();
    assert_eq!(status.unwrap().collision_count, Some(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_update_respects_its_limits_at_every_moment(
        replicas in 1..7_i32,
        surge in 0..4_i32,
        unavailable in 0..4_i32,
        rounds in prop::collection::vec((any::<u8>(), prop::option::of(1..4_u8)), 1..12),
    ) {
        let mut world = World::default();
        let at = deployment(&mut world, replicas, surge, unavailable);
        rolled_out(&mut world);
        let slack = if surge + unavailable == 0 { 1 } else { unavailable };
        for (mask, version) in rounds {
            if let Some(version) = version {
                world.patch(&at, &image(&format!("v{version}")));
            }
            for _ in 0..6 {
                world.step(&mut Deployments, &at);
                let asked: i32 = sets(&world).iter().map(|(_, n)| n).sum();
                prop_assert!(asked <= replicas + surge, "{asked} asked for");
                world.settle(&mut ReplicaSets::default(), Kind::ReplicaSet);
                let up = world.state.all::<Pod>().filter(|p| pods::is_ready(p) && !pods::is_terminating(p)).count();
                let up = i32::try_from(up).unwrap();
                prop_assert!(up >= replicas - slack.min(replicas), "{up} available");
            }
            agents(&mut world, |i| mask >> (i % 8) & 1 == 1);
            world.settle(&mut ReplicaSets::default(), Kind::ReplicaSet);
        }
        rolled_out(&mut world);
        let active: Vec<i32> = sets(&world).into_iter().map(|(_, n)| n).filter(|n| *n > 0).collect();
        prop_assert_eq!(active, vec![replicas]);
    }
}
