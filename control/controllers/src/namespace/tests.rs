use super::*;
use crate::fixture::World;

fn controller() -> Namespaces {
    Namespaces {
        ca_pem: "PEM".to_owned(),
    }
}

fn namespace(world: &mut World) -> ObjRef {
    world.put(
        Kind::Namespace,
        json!({"metadata": {"name": "ns"}, "spec": {"finalizers": [FINALIZER]}}),
    )
}

#[test]
fn a_namespace_gets_its_account_and_the_ca() {
    let mut world = World::default();
    namespace(&mut world);
    world.settle(&mut controller(), Kind::Namespace);
    assert_eq!(world.count::<ServiceAccount>(), 1);
    let at = ObjRef::new(Kind::ConfigMap, "ns", ROOT_CA_CONFIG_MAP);
    let data = |world: &World| {
        world
            .state
            .get::<ConfigMap>(&at.key)
            .unwrap()
            .data
            .clone()
            .unwrap()
    };
    assert_eq!(data(&world)[CA_KEY], "PEM");
    // Edited by somebody: repaired.
    world.patch(&at, &json!({"data": {CA_KEY: "forged"}}));
    world.settle(&mut controller(), Kind::Namespace);
    assert_eq!(data(&world)[CA_KEY], "PEM");
}

#[test]
fn a_terminating_namespace_loses_pods_first_and_the_finalizer_last() {
    let mut world = World::default();
    let at = namespace(&mut world);
    world.put(
        Kind::Pod,
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []}}),
    );
    world.put(Kind::Secret, json!({"metadata": {"name": "s"}}));
    world.patch(
        &at,
        &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["x"]}}),
    );
    let kinds = |plan: &Plan| -> Vec<Kind> {
        let ops = plan.steps.iter().map(|step| match &step.op {
            Op::Delete { at, .. } => at.kind,
            _ => Kind::Namespace,
        });
        ops.collect()
    };
    assert_eq!(kinds(&world.step(&mut controller(), &at)), [Kind::Pod]);
    // The Pod is marked; its agent has not removed it yet.
    assert!(world.step(&mut controller(), &at).steps.is_empty());
    world.remove(&ObjRef::new(Kind::Pod, "ns", "p"));
    assert_eq!(kinds(&world.step(&mut controller(), &at)), [Kind::Secret]);
    let last = world.step(&mut controller(), &at);
    assert!(
        matches!(&last.steps.last().unwrap().op, Op::Finalize { body, .. }
        if body["spec"]["finalizers"] == json!([]))
    );
    let guards = last
        .steps
        .iter()
        .filter(|s| matches!(s.op, Op::VerifyEmpty { .. }));
    assert_eq!(guards.count(), 9, "every namespaced kind is asked for");
    assert!(world.state.object(&at).is_none());
}
