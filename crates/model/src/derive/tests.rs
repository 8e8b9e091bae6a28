use std::sync::Arc;

use expect_test::{Expect, expect};

use super::*;
use crate::desired::Backend;
use crate::inputs::{Endpoint, InputEvent, SlicePort, TrafficPolicy};
use crate::testing::plain;

mod balance;
mod duplicates;
mod findings;
mod history;
mod lifeline;
mod node;

/// Its internal policy asks for both sets of endpoints, so that tests see both.
fn service(change: impl FnOnce(&mut Service)) -> Service {
    let port = plain::port("http", Protocol::Tcp, 80);
    let mut service = plain::service("web", vec![[10, 96, 0, 10].into()], vec![port]);
    service.internal_policy = TrafficPolicy::Local;
    change(&mut service);
    service
}

/// `ready`, `serving`, `terminating` as letters; local when on `n1`.
fn endpoint(ip: &str, conditions: &str, node: &str) -> Endpoint {
    plain::endpoint(ip.parse().unwrap(), conditions, Some(node))
}

#[test]
fn the_local_set_is_made_where_a_packet_can_meet_it() {
    let local = |change: fn(&mut Service)| {
        let web = service(|s| {
            s.internal_policy = TrafficPolicy::Cluster;
            change(s);
        });
        let here = vec![endpoint("10.244.1.2", "rs", "n1")];
        let (rules, _) = derive(web, vec![slice("a", 8080, here)]);
        rules.ports[0].local.len()
    };
    assert_eq!(local(|_| {}), 0);
    assert_eq!(local(|s| s.internal_policy = TrafficPolicy::Local), 1);
    let external = |s: &mut Service| s.external_policy = TrafficPolicy::Local;
    assert_eq!(local(external), 0, "no frontend is external");
    assert_eq!(
        local(|s| {
            s.external_policy = TrafficPolicy::Local;
            s.ports[0].node_port = Some(30080);
        }),
        1
    );
}

fn slice(name: &str, port: u16, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let target = plain::target("http", Protocol::Tcp, port);
    plain::slice(name, "web", Family::V4, target, endpoints)
}

/// Of `n1`, where the external IPs of these tests are allowed.
fn settings() -> NodeSettings {
    NodeSettings {
        external_ip_cidrs: vec!["203.0.113.0/24".parse().unwrap()],
        ..NodeSettings::new("n1")
    }
}

fn derive(service: Service, slices: Vec<EndpointSlice>) -> (ServiceRules, Vec<Diagnostic>) {
    let mut inputs = Inputs::default();
    let key = service.key.clone();
    inputs.apply(InputEvent::Service(key.clone(), Some(service)));
    for slice in slices {
        inputs.apply(InputEvent::Slice(slice.key.clone(), Some(slice)));
    }
    let (rules, diagnostics) = derive_service(&inputs, &key, &settings());
    (rules.unwrap(), diagnostics)
}

fn check(service: Service, slices: Vec<EndpointSlice>, expected: &Expect) {
    use std::fmt::Write;
    let (rules, diagnostics) = derive(service, slices);
    let mut text = String::new();
    for rule in &rules.ports {
        let list = |backends: &[Backend]| {
            let texts = backends.iter().map(|backend| {
                let local = if backend.local { "*" } else { "" };
                format!("{backend}{local}")
            });
            texts.collect::<Vec<_>>().join(" ")
        };
        for frontend in &rule.frontends {
            writeln!(text, "{frontend} {:?}", frontend.kind).unwrap();
        }
        writeln!(text, "  cluster: {}", list(&rule.cluster)).unwrap();
        writeln!(text, "  local: {}", list(&rule.local)).unwrap();
        writeln!(text, "  any: {}", rule.any_endpoints).unwrap();
    }
    for diagnostic in diagnostics {
        writeln!(text, "! {diagnostic}").unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn union_of_slices_joined_by_port_name_and_protocol() {
    let mut other = slice("b", 9090, vec![endpoint("10.244.2.2", "rs", "n2")]);
    other.ports.push(SlicePort {
        name: "http".into(),
        protocol: Protocol::Udp,
        port: 53,
    });
    other.ports.push(SlicePort {
        name: "metrics".into(),
        protocol: Protocol::Tcp,
        port: 9100,
    });
    check(
        service(|_| {}),
        vec![
            slice("a", 8080, vec![endpoint("10.244.1.2", "rs", "n1")]),
            other,
        ],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
              cluster: 10.244.1.2:8080* 10.244.2.2:9090
              local: 10.244.1.2:8080*
              any: true
        "]],
    );
}

#[test]
fn terminating_endpoints_serve_when_nothing_is_ready() {
    let endpoints = vec![
        endpoint("10.244.1.2", "st", "n1"),
        endpoint("10.244.2.2", "t", "n2"),
        endpoint("10.244.2.3", "s", "n2"),
    ];
    check(
        service(|_| {}),
        vec![slice("a", 8080, endpoints)],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
              cluster: 10.244.1.2:8080*
              local: 10.244.1.2:8080*
              any: true
        "]],
    );
}

#[test]
fn each_set_falls_back_by_itself() {
    let endpoints = vec![
        endpoint("10.244.1.2", "st", "n1"),
        endpoint("10.244.2.2", "rs", "n2"),
    ];
    check(
        service(|_| {}),
        vec![slice("a", 8080, endpoints)],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
              cluster: 10.244.2.2:8080
              local: 10.244.1.2:8080*
              any: true
        "]],
    );
}

#[test]
fn a_udp_port_keeps_the_flows_of_endpoints_that_still_answer() {
    let endpoints = vec![
        endpoint("10.244.1.2", "st", "n1"),
        endpoint("10.244.2.2", "rs", "n2"),
        endpoint("10.244.2.3", "st", "n2"),
        endpoint("10.244.2.4", "t", "n2"),
        endpoint("10.244.2.5", "s", "n2"),
    ];
    let lingering = |protocol| {
        let service = service(|s| s.ports[0].protocol = protocol);
        let mut slice = slice("a", 8080, endpoints.clone());
        slice.ports[0].protocol = protocol;
        derive(service, vec![slice]).0.ports[0].lingering.clone()
    };
    // The first one serves policy `Local`, the second one `Cluster`; the last but one is dead.
    assert_eq!(
        lingering(Protocol::Udp),
        ["10.244.2.3:8080", "10.244.2.5:8080"].map(|addr| addr.parse().unwrap())
    );
    assert_eq!(lingering(Protocol::Tcp), []);
}

#[test]
fn no_usable_endpoint_leaves_empty_sets() {
    check(
        service(|_| {}),
        vec![slice("a", 8080, vec![endpoint("10.244.1.2", "", "n1")])],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
              cluster: 
              local: 
              any: false
        "]],
    );
}

#[test]
fn each_family_has_its_own_addresses() {
    check(
        service(|s| {
            s.cluster_ips.push("fd00:10:96::a".parse().unwrap());
            s.ports[0].node_port = Some(30_080);
            s.external_ips = vec![[203, 0, 113, 1].into()];
            s.load_balancer_ips = vec!["2001:db8::1".parse().unwrap()];
        }),
        vec![slice("a", 8080, vec![endpoint("10.244.1.2", "rs", "n1")])],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
            node:30080/tcp NodePort
            203.0.113.1:80/tcp ExternalIp
              cluster: 10.244.1.2:8080*
              local: 10.244.1.2:8080*
              any: true
            [fd00:10:96::a]:80/tcp ClusterIp
            node:30080/tcp NodePort
            [2001:db8::1]:80/tcp LoadBalancer
              cluster: 
              local: 
              any: false
        "]],
    );
}

#[test]
fn an_address_named_twice_is_one_frontend() {
    check(
        service(|s| {
            s.external_ips = vec![
                [203, 0, 113, 1].into(),
                [10, 96, 0, 10].into(),
                [203, 0, 113, 1].into(),
            ];
            s.load_balancer_ips = vec![[203, 0, 113, 1].into()];
        }),
        vec![],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
            203.0.113.1:80/tcp LoadBalancer
              cluster: 
              local: 
              any: false
        "]],
    );
}

#[test]
fn what_cannot_be_used_is_said_and_holds_nothing_back() {
    let mut bad = slice("a", 0, vec![endpoint("10.244.1.2", "rs", "n1")]);
    bad.endpoints.push(endpoint("fd00::2", "rs", "n1"));
    bad.endpoints.push(endpoint("127.0.0.1", "rs", "n1"));
    let good = slice("b", 8080, vec![endpoint("10.244.1.3", "rs", "n1")]);
    check(
        service(|s| {
            s.cluster_ips.push([10, 96, 0, 11].into());
            let mut twice = s.ports[0].clone();
            s.ports.push(twice.clone());
            twice.port = 81;
            s.ports.push(twice.clone());
            twice.port = 0;
            s.ports.push(twice);
        }),
        vec![bad, good],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
              cluster: 10.244.1.3:8080*
              local: 10.244.1.3:8080*
              any: true
            ! default/web: spec.clusterIPs[1]: only one address per family is served, 10.96.0.10 already is; 10.96.0.11 gets no rules
            ! default/web: spec.ports[1].port: an earlier port has the same number and protocol; this one gets no rules
            ! default/web: spec.ports[2].name: an earlier port has the same name and protocol; this one gets no rules
            ! default/web: spec.ports[3].port: port 0 cannot be served; this port gets no rules
            ! default/a: ports[0].port: no port number; its endpoints get no traffic for this port
            ! default/a: endpoints[1].addresses[0]: fd00::2 is not of the slice's addressType; it gets no traffic
            ! default/a: endpoints[2].addresses[0]: 127.0.0.1 is no address that an endpoint can have; it gets no traffic
        "]],
    );
}

#[test]
fn a_source_range_that_covers_all_lifts_the_restriction() {
    let restricted = |ranges: &[&str]| {
        let (rules, _) = derive(
            service(|s| s.source_ranges = ranges.iter().map(|r| r.parse().unwrap()).collect()),
            vec![],
        );
        rules.ports[0].source_ranges.len()
    };
    assert_eq!(restricted(&["192.0.2.0/24", "2001:db8::/32"]), 1);
    assert_eq!(restricted(&["192.0.2.0/24", "0.0.0.0/0"]), 0);
    assert_eq!(restricted(&["192.0.2.0/24", "::/0"]), 1);
}

#[test]
fn the_same_port_number_with_two_protocols_is_two_rules() {
    let (rules, diagnostics) = derive(
        service(|s| {
            let mut udp = s.ports[0].clone();
            udp.protocol = Protocol::Udp;
            s.ports.push(udp);
        }),
        vec![slice("a", 8080, vec![endpoint("10.244.1.2", "rs", "n1")])],
    );
    assert_eq!(diagnostics, []);
    let counts: Vec<_> = rules.ports.iter().map(|p| p.cluster.len()).collect();
    assert_eq!(counts, [1, 0]);
}

#[test]
fn external_ips_are_served_where_they_are_allowed() {
    check(
        service(|s| {
            s.external_ips = ["203.0.113.9", "198.51.100.9", "127.0.0.1"]
                .map(|ip| ip.parse().unwrap())
                .into();
        }),
        vec![slice("a", 8080, vec![endpoint("10.244.1.2", "rs", "n1")])],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
            203.0.113.9:80/tcp ExternalIp
              cluster: 10.244.1.2:8080*
              local: 10.244.1.2:8080*
              any: true
            ! default/web: spec.externalIPs: 198.51.100.9 is in none of the allowed ranges (--external-ip-cidrs); it gets no rules
            ! default/web: spec.externalIPs: 127.0.0.1 is no address that a Service can have; it gets no rules
        "]],
    );
}

#[test]
fn ranges_of_the_other_family_only_leave_a_family_open_and_say_so() {
    check(
        service(|s| {
            s.load_balancer_ips = vec![[203, 0, 113, 1].into()];
            s.source_ranges = vec!["2001:db8::/32".parse().unwrap()];
        }),
        vec![],
        &expect![[r"
            10.96.0.10:80/tcp ClusterIp
            203.0.113.1:80/tcp LoadBalancer
              cluster: 
              local: 
              any: false
            ! default/web: spec.loadBalancerSourceRanges: no range is of IPv4; everybody may use the load balancer addresses of that family
        "]],
    );
}
