//! What the node itself decides, and what of that touches which Service.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::*;
use crate::inputs::{DirectAnswers, Node};

pub(super) fn node(zone: Option<&str>, address: &str) -> Node {
    Node {
        name: "n1".into(),
        addresses: vec![address.parse().unwrap()],
        pod_cidrs: Vec::new(),
        zone: zone.map(Into::into),
        draining: false,
        direct_answers: DirectAnswers::No,
    }
}

/// A Service with hints for zone `a`, one with source ranges, and one with neither.
fn inputs() -> Inputs {
    let mut inputs = Inputs::default();
    for name in ["hinted", "guarded", "plain"] {
        let service = service(|s| {
            s.key = ObjectKey::new("default", name);
            if name == "guarded" {
                s.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
            }
        });
        let mut slice = slice(name, 8080, vec![endpoint("10.244.1.2", "rs", "n1")]);
        slice.service = slice.key.neighbour(name);
        if name == "hinted" {
            slice.endpoints[0].zone_hints = ["a".into()].into();
        }
        inputs.apply(InputEvent::Service(service.key.clone(), Some(service)));
        inputs.apply(InputEvent::Slice(slice.key.clone(), Some(slice)));
    }
    inputs
}

#[test]
fn a_change_of_the_node_touches_whom_it_concerns() {
    let mut inputs = inputs();
    let mut touched = |node: Option<Node>| {
        let touched = inputs.apply(InputEvent::Node("n1".into(), node));
        let names = touched.iter().map(|key| key.name().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(touched(Some(node(None, "192.0.2.1"))), "guarded");
    assert_eq!(touched(Some(node(Some("a"), "192.0.2.1"))), "hinted");
    assert_eq!(touched(Some(node(Some("a"), "192.0.2.1"))), "");
    assert_eq!(touched(Some(node(Some("a"), "192.0.2.2"))), "guarded");
    let draining = Node {
        draining: true,
        ..node(Some("a"), "192.0.2.2")
    };
    assert_eq!(touched(Some(draining)), "");
    assert_eq!(touched(Some(node(Some("b"), "192.0.2.2"))), "hinted");
    assert_eq!(touched(Some(node(Some("c"), "192.0.2.2"))), "");
    assert_eq!(touched(None), "guarded");
}

#[test]
fn the_time_of_a_change_touches_nobody() {
    let mut inputs = inputs();
    let mut slice = slice("plain", 8080, vec![endpoint("10.244.1.2", "rs", "n1")]);
    slice.service = slice.key.neighbour("plain");
    slice.last_change = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
    let event = InputEvent::Slice(slice.key.clone(), Some(slice));
    assert_eq!(inputs.apply(event), BTreeSet::new());
}

#[test]
fn the_health_check_counts_ready_endpoints_on_this_node_once() {
    let count = |family: Family, endpoints: &[Endpoint]| {
        let mut one = slice("a", 8080, endpoints.to_vec());
        one.family = family;
        let mut other = one.clone();
        other.key = ObjectKey::new("default", "b");
        other.ports[0].name = "metrics".into();
        other.ports[0].port = 9100;
        let (rules, _) = derive(
            service(|s| s.health_check_node_port = Some(31_000)),
            vec![one, other],
        );
        let check = rules.health_check.unwrap();
        assert_eq!(check.port, 31_000);
        check.local_ready
    };
    let v4 = [
        endpoint("10.244.1.2", "rs", "n1"),
        endpoint("10.244.1.3", "rs", "n1"),
        endpoint("10.244.1.4", "st", "n1"),
        endpoint("10.244.1.5", "", "n1"),
        endpoint("10.244.2.2", "rs", "n2"),
    ];
    assert_eq!(count(Family::V4, &v4), 2);
    assert_eq!(count(Family::V4, &v4[2..]), 0);
    assert_eq!(count(Family::V6, &[endpoint("fd00::2", "rs", "n1")]), 1);
    assert_eq!(count(Family::V6, &v4), 0);

    let (unchecked, _) = derive(service(|_| {}), vec![slice("a", 8080, v4.to_vec())]);
    assert_eq!(unchecked.health_check, None);
}

#[test]
fn a_slice_that_changes_its_service_touches_both() {
    let mut inputs = Inputs::default();
    let mut moving = slice("a", 8080, vec![endpoint("10.244.1.2", "rs", "n1")]);
    let key = moving.key.clone();
    inputs.apply(InputEvent::Slice(key.clone(), Some(moving.clone())));
    moving.service = key.neighbour("api");
    let touched = inputs.apply(InputEvent::Slice(key.clone(), Some(moving.clone())));
    assert_eq!(
        touched,
        BTreeSet::from([
            ObjectKey::new("default", "api"),
            ObjectKey::new("default", "web")
        ])
    );
    let again = inputs.apply(InputEvent::Slice(key, Some(moving)));
    assert_eq!(again, BTreeSet::new());
}
