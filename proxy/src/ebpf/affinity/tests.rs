use seaway_kernel::NetNs;
use seaway_model::{Algorithm, Backend, Family, ObjectKey, PortRule, ServiceRules, TrafficPolicy};

use super::*;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_000_000 * SECOND;
const TIMEOUT: Duration = Duration::from_secs(600);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(name: &str, protocol: Protocol, affinity: Option<Duration>) -> PortRule {
    let backend = |addr: &str| Backend {
        addr: addr.parse().unwrap(),
        local: false,
    };
    PortRule {
        port_name: name.into(),
        protocol,
        family: Family::V4,
        frontends: Vec::new(),
        cluster: vec![backend("10.244.1.6:8080"), backend("10.244.2.5:8080")],
        local: vec![backend("10.244.1.7:8080")],
        lingering: Vec::new(),
        any_endpoints: true,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity,
        source_ranges: Vec::new(),
    }
}

fn desired(ports: Vec<PortRule>) -> Desired {
    let rules = ServiceRules {
        ports,
        health_check: None,
        algorithm: Algorithm::default(),
    };
    let key = ObjectKey::new("default", "sticky");
    Desired {
        services: BTreeMap::from([(key, rules)]),
    }
}

fn sticky() -> Vec<Endpoint> {
    endpoints(&desired(vec![port("http", Protocol::Tcp, Some(TIMEOUT))]))
}

fn remembered(address: &str, seconds: u64) -> Remembered {
    Remembered {
        address: ip(address),
        age: Duration::from_secs(seconds),
    }
}

fn space(cookie: u64, addresses: &[&str]) -> Space {
    Space {
        netns: NetNs::current().unwrap(),
        cookie,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
    }
}

#[test]
fn only_what_the_programs_carry_and_remember_has_endpoints() {
    let all = endpoints(&desired(vec![
        port("http", Protocol::Tcp, Some(TIMEOUT)),
        port("dns", Protocol::Udp, None),
        port("signal", Protocol::Sctp, Some(TIMEOUT)),
    ]));
    let addresses: Vec<String> = all.iter().map(|each| each.addr.to_string()).collect();
    assert_eq!(
        addresses,
        ["10.244.1.6:8080", "10.244.1.7:8080", "10.244.2.5:8080"]
    );
    assert!(all.iter().all(|each| each.list.starts_with("SEAWAY-")));
    assert_ne!(all[0].list, all[1].list);
}

#[test]
fn a_pod_on_a_list_is_known_by_its_packets_and_by_its_sockets() {
    let endpoints = sticky();
    let listed = [(
        &endpoints[0],
        vec![remembered("10.244.1.5", 10), remembered("203.0.113.9", 20)],
    )];
    let namespaces = by_address(&[
        space(7, &["10.244.1.5", "fd00::5"]),
        space(8, &["10.0.0.1"]),
    ]);
    let clients = to_programs(&listed, &namespaces, NOW);
    let expected = |seconds: u64| AffinityValue {
        last_used: NOW - seconds * SECOND,
        addr: ip("10.244.1.6").into(),
        port: 8080_u16.to_be(),
        pad: [0; 6],
    };
    let key = |client| AffinityKey {
        affinity: endpoints[0].affinity,
        client,
    };
    assert_eq!(
        clients,
        BTreeMap::from([
            (key(ip("10.244.1.5").into()), expected(10)),
            (key(AffinityKey::of_namespace(7)), expected(10)),
            (key(ip("203.0.113.9").into()), expected(20)),
        ])
    );
}

#[test]
fn the_list_that_saw_a_client_last_has_it_and_old_clients_are_forgotten() {
    let endpoints = sticky();
    for order in [[0, 2], [2, 0]] {
        let on = |number: usize| {
            let seconds = if number == 2 { 5 } else { 50 };
            let clients = vec![remembered("10.0.0.9", seconds), remembered("10.0.0.8", 600)];
            (&endpoints[number], clients)
        };
        let clients = to_programs(&order.map(on), &BTreeMap::new(), NOW);
        let found: Vec<IpAddr> = clients.values().map(|value| value.addr.ip()).collect();
        assert_eq!(found, [ip("10.244.2.5")]);
    }
}

#[test]
fn a_socket_is_known_to_rules_by_the_addresses_of_its_namespace() {
    let endpoints = sticky();
    let value = |endpoint: &Endpoint, seconds: u64| AffinityValue {
        last_used: NOW - seconds * SECOND,
        addr: endpoint.addr.ip().into(),
        port: endpoint.addr.port().to_be(),
        pad: [0; 6],
    };
    let key = |client| AffinityKey {
        affinity: endpoints[0].affinity,
        client,
    };
    let gone = AffinityValue {
        addr: ip("10.244.9.9").into(),
        ..value(&endpoints[0], 1)
    };
    let entries = [
        (key(AffinityKey::of_namespace(7)), value(&endpoints[0], 3)),
        // Its packets were there earlier, and got another one.
        (key(ip("10.244.1.5").into()), value(&endpoints[2], 30)),
        (key(ip("203.0.113.9").into()), value(&endpoints[0], 1)),
        (key(ip("203.0.113.8").into()), value(&endpoints[0], 600)),
        (key(ip("203.0.113.7").into()), gone),
        (key(AffinityKey::of_namespace(9)), value(&endpoints[0], 2)),
    ];
    let spaces = [space(7, &["10.244.1.5", "fd00::5", "fe80::1"])];
    let edits = to_rules(&endpoints, &entries, &spaces, NOW);
    // The one that came last is the last one, and no other endpoint has either.
    let both = vec![ip("10.244.1.5"), ip("203.0.113.9")];
    let edit = |on: &[IpAddr], off: &[IpAddr]| Edit {
        on: on.to_vec(),
        off: off.to_vec(),
    };
    assert_eq!(
        edits,
        BTreeMap::from([
            (endpoints[0].list.clone(), edit(&both, &[])),
            (endpoints[1].list.clone(), edit(&[], &both)),
            (endpoints[2].list.clone(), edit(&[], &both)),
        ])
    );
}

#[test]
fn clients_are_forgotten_when_their_time_is_over() {
    let timeouts = BTreeMap::from([(1, TIMEOUT), (2, Duration::from_secs(5))]);
    for (affinity, age, expected) in [
        (1, 0, false),
        (1, 599, false),
        (1, 600, true),
        (2, 4, false),
        (2, 5, true),
        // A port that is gone.
        (3, 600, false),
        (3, 86_399, false),
        (3, 86_400, true),
    ] {
        let key = AffinityKey {
            affinity,
            client: ip("10.0.0.9").into(),
        };
        let value = AffinityValue {
            last_used: NOW - age * SECOND,
            ..AffinityValue::default()
        };
        let over = forgotten(&[(key, value)], &timeouts, NOW);
        let expected: &[AffinityKey] = if expected { &[key] } else { &[] };
        assert_eq!(over, expected, "{affinity} after {age} s");
    }
    // The clock of programs is behind ours by a tick, or before.
    let key = AffinityKey::default();
    let early = AffinityValue {
        last_used: NOW + 1,
        ..AffinityValue::default()
    };
    assert_eq!(forgotten(&[(key, early)], &timeouts, NOW), []);
}
