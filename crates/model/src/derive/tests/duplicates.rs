//! One ip:port in two slices, as while an endpoint moves between them: what either says, in whichever order.

use super::*;

/// Conditions, node and hints as `zone=a` or `node=n1`.
fn said(text: &str) -> Endpoint {
    let words: Vec<&str> = text.split(' ').collect();
    let hints = |kind| {
        let of_kind = words[2..].iter().filter_map(|hint| hint.strip_prefix(kind));
        of_kind.map(Arc::from).collect()
    };
    Endpoint {
        zone_hints: hints("zone="),
        node_hints: hints("node="),
        ..endpoint("10.244.1.2", words[0], words[1])
    }
}

/// Where a packet for a Service with this endpoint may go, seen from node `n1` in zone `a`. The other endpoint is on `n2`
/// in zone `b`, and its hints say so.
fn derived(slices: [&str; 2]) -> PortRule {
    let mut inputs = Inputs::default();
    let web = service(|s| s.ports[0].protocol = Protocol::Udp);
    let key = web.key.clone();
    inputs.apply(InputEvent::Service(key.clone(), Some(web)));
    inputs.apply(InputEvent::Node(
        "n1".into(),
        Some(node::node(Some("a"), "192.0.2.1")),
    ));
    let other = Endpoint {
        address: [10, 244, 2, 2].into(),
        ..said("rs n2 zone=b node=n2")
    };
    for (name, endpoints) in [
        ("a", vec![said(slices[0]), other]),
        ("b", vec![said(slices[1])]),
    ] {
        let mut slice = slice(name, 8080, endpoints);
        slice.ports[0].protocol = Protocol::Udp;
        inputs.apply(InputEvent::Slice(slice.key.clone(), Some(slice)));
    }
    let (rules, diagnostics) = derive_service(&inputs, &key, &settings());
    assert_eq!(diagnostics, []);
    rules.unwrap().ports.remove(0)
}

/// The sets that the endpoint is in, and whether the other one is preferred away.
fn summary(rule: &PortRule) -> String {
    let moving = "10.244.1.2:8080".parse().unwrap();
    let mut words = Vec::new();
    if rule.cluster.iter().any(|b| b.addr == moving) {
        words.push("cluster");
    }
    if rule.local.iter().any(|b| b.addr == moving) {
        words.push("local");
    }
    if rule.lingering.contains(&moving) {
        words.push("lingering");
    }
    if rule.cluster.iter().all(|b| b.addr == moving) {
        words.push("alone");
    }
    words.join(" ")
}

#[test]
fn the_better_word_counts() {
    for (one, other, expected) in [
        // The better state, with all that is said with it.
        ("rs n1", "st n2", "cluster local"),
        ("rs n2", "st n1", "cluster"),
        ("rs n1", "t n1", "cluster local"),
        ("st n1", "t n2", "local"),
        ("st n2", "t n1", "lingering"),
        (
            "rs n1 zone=b node=n2",
            "st n1 zone=a node=n1",
            "cluster local",
        ),
        ("rs n1 zone=a", "st n1 zone=b", "cluster local alone"),
        // Of the same state: on this node, preferred here, answering, if one says so.
        ("rs n1", "rs n2", "cluster local"),
        ("st n1", "st n2", "local"),
        ("rs n1 zone=a", "rs n1", "cluster local alone"),
        ("rs n1 zone=a", "rs n1 zone=b", "cluster local alone"),
        ("rs n1 zone=b", "rs n1", "cluster local"),
        ("rs n1 node=n1", "rs n1", "cluster local alone"),
        ("rs n1 node=n1", "rs n1 node=n2", "cluster local alone"),
        ("rs n1 node=n1", "rs n1 zone=b", "cluster local alone"),
        ("s n1", "t n1", "lingering"),
        ("t n1", "t n1", ""),
    ] {
        for slices in [[one, other], [other, one]] {
            assert_eq!(summary(&derived(slices)), expected, "{slices:?}");
        }
    }
}
