use std::time::Duration;

use expect_test::{Expect, expect};
use seaway_model::{Algorithm, EndpointSlice, Family, InputEvent, Node, Service, TrafficPolicy};
use serde_json::{Value, json};

use super::*;

mod anything;
mod nodes;
mod slices;

fn service(spec: &Value) -> (Option<Service>, Vec<String>) {
    service_with(spec, &json!({}), &json!({}))
}

fn service_with(spec: &Value, labels: &Value, status: &Value) -> (Option<Service>, Vec<String>) {
    let object = json!({"metadata": {"name": "web", "namespace": "shop", "labels": labels}, "spec": spec, "status": status});
    let object = Object::Service(serde_json::from_value(object).unwrap());
    let done = convert(&object, &mut Interner::default());
    let InputEvent::Service(key, service) = done.event else {
        panic!("wrong event")
    };
    assert_eq!(key.to_string(), "shop/web");
    (service, lines(&done.diagnostics))
}

fn slice(object: Value) -> (Option<EndpointSlice>, Vec<String>) {
    let object = Object::Slice(serde_json::from_value(object).unwrap());
    let done = convert(&object, &mut Interner::default());
    let InputEvent::Slice(_, slice) = done.event else {
        panic!("wrong event")
    };
    (slice, lines(&done.diagnostics))
}

fn node(object: Value) -> (Node, Vec<String>) {
    let object = Object::Node(serde_json::from_value(object).unwrap());
    let done = convert(&object, &mut Interner::default());
    let InputEvent::Node(_, Some(node)) = done.event else {
        panic!("wrong event")
    };
    (node, lines(&done.diagnostics))
}

fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics
        .iter()
        .map(|d| format!("{} {}: {}", d.object, d.field, d.consequence))
        .collect()
}

fn check(value: &impl fmt::Debug, want: &Expect) {
    want.assert_eq(&format!("{value:?}"));
}

#[test]
fn how_a_service_chooses() {
    let name = "seaway.dev/load-balancer-algorithm";
    let of = |text: Value| {
        let object = json!({"metadata": {"name": "web", "namespace": "shop", "annotations": {name: text, "other": "x"}},
            "spec": {"clusterIP": "10.96.0.1"}});
        let object = Object::Service(serde_json::from_value(object).unwrap());
        let done = convert(&object, &mut Interner::default());
        let InputEvent::Service(_, Some(service)) = done.event else {
            panic!("no Service")
        };
        (service.algorithm, lines(&done.diagnostics))
    };
    for (text, expected) in [
        (json!("random"), Some(Algorithm::Random)),
        (json!(" maglev "), Some(Algorithm::Maglev)),
        (Value::Null, None),
    ] {
        assert_eq!(of(text.clone()), (expected, vec![]), "{text}");
    }
    for wrong in ["", "Maglev", "ring"] {
        let say = format!(
            "shop/web metadata.annotations[{name}]: {wrong:?} is neither random nor maglev: the node's default is used"
        );
        assert_eq!(of(json!(wrong)), (None, vec![say]));
    }
}

#[test]
fn services_that_are_not_ours() {
    let ip = json!({"clusterIP": "10.96.0.1"});
    for spec in [
        json!({"clusterIP": "None"}),
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"type": "ExternalName", "externalName": "a.example", "clusterIP": "10.96.0.1"}),
        json!({"clusterIP": ""}),
        json!({}),
        Value::Null,
    ] {
        assert_eq!(service(&spec), (None, vec![]), "{spec}");
    }
    let foreign = json!({"service.kubernetes.io/service-proxy-name": "other"});
    assert_eq!(service_with(&ip, &foreign, &json!({})), (None, vec![]));
}

#[test]
fn a_full_service() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "010.096.0.5", "clusterIPs": ["010.096.0.5", "fd00::5"],
        "ports": [
            {"name": "web", "protocol": "TCP", "port": 80, "targetPort": "http", "nodePort": 30080},
            {"name": null, "port": 53, "protocol": "UDP", "nodePort": 0},
        ],
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "externalIPs": ["198.51.100.7"], "loadBalancerSourceRanges": [" 192.0.2.9/24 "],
    });
    let status = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "VIP"}, {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"hostname": "lb.example"},
    ]}});
    let (got, diagnostics) = service_with(&spec, &json!({}), &status);
    let got = got.unwrap();
    assert_eq!(diagnostics, Vec::<String>::new());
    check(&got.cluster_ips, &expect!["[10.96.0.5, fd00::5]"]);
    check(
        &got.load_balancer_ips,
        &expect!["[203.0.113.1, 203.0.113.2]"],
    );
    check(&got.external_ips, &expect!["[198.51.100.7]"]);
    assert_eq!(got.source_ranges, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(got.affinity, Some(Duration::from_secs(60)));
    assert_eq!(got.health_check_node_port, Some(31000));
    assert_eq!(got.internal_policy, TrafficPolicy::Local);
    assert_eq!(got.external_policy, TrafficPolicy::Local);
    check(
        &got.ports,
        &expect![[
            r#"[ServicePort { name: "web", protocol: Tcp, port: 80, node_port: Some(30080) }, ServicePort { name: "", protocol: Udp, port: 53, node_port: None }]"#
        ]],
    );
}

#[test]
fn broken_parts_of_a_service_are_left_out() {
    let (got, diagnostics) = service(&json!({
        "clusterIPs": ["10.96.0.1", "10.96.0.2", "fd00::x"],
        "ports": [{"port": 0}, {"port": 70000}, {"port": 80, "protocol": "tcp"}, {"port": 81, "nodePort": 70000}],
        "externalTrafficPolicy": "Nearby", "sessionAffinity": "Cookie", "externalIPs": ["here"],
        "healthCheckNodePort": 31000, "loadBalancerSourceRanges": ["everyone"],
    }));
    let got = got.unwrap();
    check(&got.cluster_ips, &expect!["[10.96.0.1]"]);
    check(
        &got.ports.iter().map(|p| p.port).collect::<Vec<_>>(),
        &expect!["[81]"],
    );
    assert_eq!(got.health_check_node_port, None);
    assert_eq!(got.source_ranges, closed(&["0.0.0.0/32", "::/128"]));
    expect![[r#"
        shop/web spec.clusterIPs: 10.96.0.2 is the second address of its family: not served
        shop/web spec.clusterIPs: "fd00::x" is not an IP address: not served
        shop/web spec.externalTrafficPolicy: "Nearby" is not known: read as Cluster
        shop/web spec.ports[0].port: must be between 1 and 65535: the port is not served
        shop/web spec.ports[1].port: must be between 1 and 65535: the port is not served
        shop/web spec.ports[2].protocol: "tcp" is not known: the port is not served
        shop/web spec.ports[3].nodePort: must be between 1 and 65535: not served on nodes
        shop/web spec.sessionAffinity: "Cookie" is not known: no affinity
        shop/web spec.externalIPs[0]: "here" is not an IP address: not served
        shop/web spec.loadBalancerSourceRanges[0]: "everyone" is not a prefix: nobody is let in by it"#]]
    .assert_eq(&diagnostics.join("\n"));
}

#[test]
fn affinity_times() {
    for (config, want) in [
        (Value::Null, 10_800),
        (json!({"clientIP": null}), 10_800),
        (json!({"clientIP": {"timeoutSeconds": 86_400}}), 86_400),
        (json!({"clientIP": {"timeoutSeconds": 0}}), 10_800),
        (json!({"clientIP": {"timeoutSeconds": 86_401}}), 10_800),
    ] {
        let spec = json!({"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
        let (got, _) = service(&spec);
        assert_eq!(
            got.unwrap().affinity,
            Some(Duration::from_secs(want)),
            "{spec}"
        );
    }
}

fn closed(ranges: &[&str]) -> Vec<ipnetwork::IpNetwork> {
    ranges.iter().map(|range| range.parse().unwrap()).collect()
}

#[test]
fn an_unreadable_source_range_lets_nobody_in() {
    for (ranges, want) in [
        (json!(["192.0.2.0/24"]), &["192.0.2.0/24"][..]),
        (json!(["192.0.2.0/33"]), &["0.0.0.0/32"]),
        (
            json!(["192.0.2.0/24", "fd00::/129"]),
            &["192.0.2.0/24", "::/128"],
        ),
        (json!(["192.0.2.1"]), &["0.0.0.0/32"]),
        (json!([""]), &["0.0.0.0/32", "::/128"]),
        (json!([]), &[]),
        (Value::Null, &[]),
    ] {
        let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "loadBalancerSourceRanges": ranges});
        let (got, _) = service(&spec);
        assert_eq!(got.unwrap().source_ranges, closed(want), "{spec}");
    }
}

#[test]
fn a_load_balancer_without_node_ports() {
    let (got, said) = service(&json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.1", "allocateLoadBalancerNodePorts": false,
        "ports": [{"port": 80}, {"port": 443, "nodePort": 0}],
    }));
    let ports: Vec<_> = got.unwrap().ports.iter().map(|p| p.node_port).collect();
    assert_eq!((ports, said), (vec![None, None], vec![]));
}

#[test]
fn one_address_of_each_family() {
    for (spec, want) in [
        (
            json!({"clusterIP": "fd00::1", "ipFamilyPolicy": "SingleStack"}),
            expect!["[fd00::1]"],
        ),
        (
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.96.0.1"], "ipFamilyPolicy": "RequireDualStack"}),
            expect!["[fd00::1, 10.96.0.1]"],
        ),
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilyPolicy": "PreferDualStack"}),
            expect!["[10.96.0.1]"],
        ),
    ] {
        let (got, said) = service(&spec);
        check(&got.unwrap().cluster_ips, &want);
        assert_eq!(said, Vec::<String>::new());
    }
}

#[test]
fn external_policy_and_health_check_where_they_mean_something() {
    let port = "shop/web spec.healthCheckNodePort: not a port: the load balancer cannot learn which nodes have endpoints";
    for (extra, policy, check, say) in [
        (
            json!({"type": "ClusterIP"}),
            TrafficPolicy::Cluster,
            None,
            None,
        ),
        (
            json!({"type": "ClusterIP", "externalIPs": ["198.51.100.7"]}),
            TrafficPolicy::Local,
            None,
            None,
        ),
        (
            json!({"type": "NodePort"}),
            TrafficPolicy::Local,
            None,
            None,
        ),
        (
            json!({"type": "LoadBalancer"}),
            TrafficPolicy::Local,
            Some(31_000),
            None,
        ),
        (
            json!({"type": "LoadBalancer", "healthCheckNodePort": 0}),
            TrafficPolicy::Local,
            None,
            Some(port),
        ),
    ] {
        let mut spec = json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31_000});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let (got, said) = service(&spec);
        let got = got.unwrap();
        let found = (got.external_policy, got.health_check_node_port);
        assert_eq!(found, (policy, check), "{spec}");
        assert_eq!(said, Vec::from_iter(say), "{spec}");
    }
}
