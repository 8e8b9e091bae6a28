use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{World, node, running};

#[expect(
    clippy::needless_pass_by_value,
    reason = "calls read better without references"
)]
fn service(world: &mut World, spec: Value) -> ObjRef {
    let mut document = json!({
        "metadata": {"name": "web", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        document["spec"][field] = value.clone();
    }
    world.put(Kind::Service, document)
}

fn pod(world: &mut World, name: &str, ip: &str, ready: bool) -> ObjRef {
    world.put(
        Kind::Pod,
        json!({
            "metadata": {"name": name, "labels": {"app": "web"}, "uid": format!("uid-{name}")},
            "spec": {"nodeName": "n1", "containers": []},
            "status": running(ip, ready),
        }),
    )
}

fn settle(world: &mut World) -> Vec<Arc<EndpointSlice>> {
    world.settle(&mut EndpointSlices::default(), Kind::Service);
    world.state.all::<EndpointSlice>().cloned().collect()
}

/// `address: ready serving terminating` of all endpoints.
fn shown(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut shown: Vec<String> = endpoints
        .map(|e| {
            let c = e.conditions.as_ref().unwrap();
            let flag = |on: Option<bool>, letter| if on == Some(true) { letter } else { "-" };
            let (ready, serving) = (flag(c.ready, "r"), flag(c.serving, "s"));
            format!(
                "{} {ready}{serving}{}",
                e.addresses[0],
                flag(c.terminating, "t")
            )
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn conditions_follow_the_pod() {
    let mut world = World::default();
    let mut n1 = node("n1");
    n1["metadata"]["labels"] = json!({ZONE: "west"});
    world.put(Kind::Node, n1);
    service(&mut world, json!({}));
    pod(&mut world, "a", "10.0.0.1", true);
    pod(&mut world, "b", "10.0.0.2", false);
    let going = pod(&mut world, "c", "10.0.0.3", true);
    world.patch(
        &going,
        &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}),
    );
    let ended = pod(&mut world, "d", "10.0.0.4", false);
    world.patch(&ended, &json!({"status": {"phase": "Failed"}}));
    let slices = settle(&mut world);
    assert_eq!(
        shown(&slices),
        ["10.0.0.1 rs-", "10.0.0.2 ---", "10.0.0.3 -st"]
    );
    let first = &slices[0].endpoints[0];
    assert_eq!(
        (first.node_name.as_deref(), first.zone.as_deref()),
        (Some("n1"), Some("west"))
    );
    assert_eq!(
        first.target_ref.as_ref().unwrap().uid.as_deref(),
        Some("uid-a")
    );
    let labels = selector::labels(&slices[0].metadata);
    assert_eq!((&*labels[SERVICE_NAME], &*labels["team"]), ("web", "a"));
    assert!(!labels.contains_key(HEADLESS));
}

#[test]
fn unready_addresses_can_be_published_and_headless_slices_are_labelled() {
    let mut world = World::default();
    service(
        &mut world,
        json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
    );
    pod(&mut world, "a", "10.0.0.1", false);
    let slices = settle(&mut world);
    assert_eq!(shown(&slices), ["10.0.0.1 r--"]);
    assert!(selector::labels(&slices[0].metadata).contains_key(HEADLESS));
}

#[test]
fn a_named_port_that_differs_makes_two_sets() {
    let mut world = World::default();
    service(
        &mut world,
        json!({"ports": [{"port": 80, "targetPort": "http"}]}),
    );
    for (name, ip, port) in [("a", "10.0.0.1", 8080), ("b", "10.0.0.2", 9090)] {
        let at = pod(&mut world, name, ip, true);
        let ports = json!([{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]);
        world.patch(&at, &json!({"spec": {"containers": ports}}));
    }
    let slices = settle(&mut world);
    let ports: BTreeMap<i32, &str> = slices
        .iter()
        .map(|s| {
            (
                s.ports.as_ref().unwrap()[0].port.unwrap(),
                &*s.endpoints[0].addresses[0],
            )
        })
        .collect();
    assert_eq!(ports, [(8080, "10.0.0.1"), (9090, "10.0.0.2")].into());
}

#[test]
fn dual_stack_has_slices_of_both_types() {
    let mut world = World::default();
    service(&mut world, json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let at = pod(&mut world, "a", "10.0.0.1", true);
    let ips = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
    world.patch(&at, &json!({"status": {"podIPs": ips}}));
    let slices = settle(&mut world);
    let mut types: Vec<_> = slices.iter().map(|s| s.address_type.as_str()).collect();
    types.sort_unstable();
    assert_eq!(types, ["IPv4", "IPv6"]);
    assert_eq!(shown(&slices), ["10.0.0.1 rs-", "fd00::1 rs-"]);
}

/// Hints of the ready Pod on `n1` in zone `west`, of the ready one on `n2` without a zone, and of the other one.
fn hints(world: &World) -> Vec<String> {
    let slices: Vec<_> = world.state.all::<EndpointSlice>().cloned().collect();
    let mut endpoints: Vec<_> = slices.iter().flat_map(|s| &s.endpoints).collect();
    endpoints.sort_by_key(|endpoint| &endpoint.addresses);
    let show = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| match &endpoint.hints {
        None => "-".to_owned(),
        Some(hints) => {
            let nodes = hints.for_nodes.iter().flatten().map(|n| n.name.clone());
            let zones = hints.for_zones.iter().flatten().map(|z| z.name.clone());
            nodes.chain(zones).collect::<Vec<_>>().join(" ")
        }
    };
    endpoints.iter().map(show).collect()
}

#[test]
fn ready_endpoints_are_hinted_to_where_the_traffic_shall_stay() {
    let mut world = World::default();
    let mut n1 = node("n1");
    n1["metadata"]["labels"] = json!({ZONE: "west"});
    world.put(Kind::Node, n1);
    world.put(Kind::Node, node("n2"));
    let at = service(&mut world, json!({}));
    pod(&mut world, "a", "10.0.0.1", true);
    let other = pod(&mut world, "b", "10.0.0.2", true);
    world.patch(&other, &json!({"spec": {"nodeName": "n2"}}));
    pod(&mut world, "c", "10.0.0.3", false);
    let mut controller = EndpointSlices::default();
    for (distribution, wanted) in [
        (json!("PreferSameZone"), ["west", "-", "-"]),
        (json!("PreferClose"), ["west", "-", "-"]),
        (json!("PreferSameNode"), ["n1 west", "n2", "-"]),
        (json!("example.com/own"), ["-", "-", "-"]),
        (json!("PreferSameNode"), ["n1 west", "n2", "-"]),
        (Value::Null, ["-", "-", "-"]),
    ] {
        let spec = json!({"spec": {"trafficDistribution": distribution}});
        world.patch(&at, &spec);
        world.step(&mut controller, &at);
        assert_eq!(hints(&world), wanted, "{distribution}");
        assert!(world.plan(&mut controller, &at).steps.is_empty());
    }
}

#[test]
fn no_endpoints_means_one_empty_slice_and_no_service_none() {
    let mut world = World::default();
    let at = service(&mut world, json!({}));
    let slices = settle(&mut world);
    assert!(slices.len() == 1 && slices[0].endpoints.is_empty());
    let only = pod(&mut world, "a", "10.0.0.1", true);
    assert_eq!(shown(&settle(&mut world)), ["10.0.0.1 rs-"]);
    world.remove(&only);
    let slices = settle(&mut world);
    assert!(slices.len() == 1 && slices[0].endpoints.is_empty());
    world.remove(&at);
    world.step(&mut EndpointSlices::default(), &at);
    assert_eq!(world.count::<EndpointSlice>(), 0);
}

#[test]
fn services_without_selector_and_slices_of_others_are_left_alone() {
    let mut world = World::default();
    service(&mut world, json!({"selector": null}));
    let foreign = json!({
        "metadata": {"name": "mine", "labels": {SERVICE_NAME: "web"}},
        "addressType": "IPv4", "endpoints": [],
    });
    world.put(Kind::EndpointSlice, foreign);
    assert_eq!(settle(&mut world).len(), 1);
}

#[test]
fn one_change_among_many_is_one_small_write() {
    let mut world = World::default();
    let at = service(&mut world, json!({}));
    for i in 0..250 {
        pod(
            &mut world,
            &format!("p{i:03}"),
            &format!("10.0.{}.{}", i / 200, i % 200 + 1),
            true,
        );
    }
    let mut controller = EndpointSlices::default();
    world.settle(&mut controller, Kind::Service);
    let sizes: Vec<usize> = world
        .state
        .all::<EndpointSlice>()
        .map(|s| s.endpoints.len())
        .collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (3, 250));
    pod(&mut world, "p007", "10.0.0.8", false);
    let plan = world.step(&mut controller, &at);
    assert!(matches!(
        &plan.steps[..],
        [crate::plan::Step {
            op: Op::Patch { .. },
            ..
        }]
    ));
    world.remove(&ObjRef::new(Kind::Pod, "ns", "p123"));
    assert_eq!(world.step(&mut controller, &at).steps.len(), 1);
    assert!(world.step(&mut controller, &at).steps.is_empty());
}

#[test]
fn the_time_of_the_change_is_written_and_taken_away() {
    let mut world = World::default();
    let at = service(&mut world, json!({}));
    let mut controller = EndpointSlices::default();
    world.step(&mut controller, &at);
    let pod = pod(&mut world, "a", "10.0.0.1", true);
    world.step(&mut controller, &at);
    let time = |world: &World| {
        let slice = world.state.all::<EndpointSlice>().next().unwrap().clone();
        owner::annotation(&slice.metadata, TRIGGER_TIME).map(str::to_owned)
    };
    assert_eq!(time(&world).as_deref(), Some("2023-11-14T00:00:00Z"));
    world.patch(
        &pod,
        &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}),
    );
    world.step(&mut controller, &at);
    assert_eq!(time(&world), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn slices_hold_exactly_the_pods_whatever_happened(
        actions in prop::collection::vec((0..3_u8, 0..300_u16, any::<bool>(), 1..150_u16), 1..12),
    ) {
        let mut world = World::default();
        let at = service(&mut world, json!({}));
        let mut controller = EndpointSlices::default();
        for (action, first, ready, count) in actions {
            for i in first..first + count {
                let name = format!("p{i}");
                let ip = format!("10.0.{}.{}", i / 200, i % 200 + 1);
                match action {
                    0 => world.remove(&ObjRef::new(Kind::Pod, "ns", &name)),
                    _ => { pod(&mut world, &name, &ip, ready); }
                }
            }
            world.step(&mut controller, &at);
            let slices: Vec<_> = world.state.all::<EndpointSlice>().cloned().collect();
            let wanted: Vec<String> = {
                let pods = world.state.all::<Pod>();
                let mut shown: Vec<String> = pods.map(|p| {
                    let ip = p.status.as_ref().unwrap().pod_ip.clone().unwrap();
                    format!("{ip} {}-", if pods::is_ready(p) { "rs" } else { "--" })
                }).collect();
                shown.sort();
                shown
            };
            prop_assert_eq!(shown(&slices), wanted);
            prop_assert!(slices.iter().all(|s| s.endpoints.len() <= 100));
            prop_assert!(world.plan(&mut controller, &at).steps.is_empty(), "nothing left to do");
        }
    }
}
