use std::time::Duration;

use expect_test::{Expect, expect};
use seaway_model::{EndpointSlice, Family, InputEvent, Node, Service, TrafficPolicy};
use serde_json::{Value, json};

use super::*;

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
    assert_eq!(got.source_ranges, ["0.0.0.0/32".parse().unwrap()]);
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

#[test]
fn slice_conditions_and_ports_default_as_the_api_says() {
    let (got, diagnostics) = slice(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "all", "port": null}],
        "endpoints": [
            {"addresses": ["10.244.1.2"], "nodeName": "n1", "hints": {"forZones": [{"name": "a"}]}},
            {"addresses": ["10.244.1.3"], "conditions": {"ready": null, "serving": null, "terminating": null}},
            {"addresses": ["10.244.1.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.1.5"], "conditions": {"ready": false}},
            {"addresses": null},
        ],
    }));
    let got = got.unwrap();
    assert_eq!((&*got.service, got.family), ("web", Family::V4));
    check(
        &got.ports,
        &expect![[
            r#"[SlicePort { name: "", protocol: Tcp, port: 8080 }, SlicePort { name: "dns", protocol: Udp, port: 53 }]"#
        ]],
    );
    let conditions: Vec<_> = got
        .endpoints
        .iter()
        .map(|e| (e.ready, e.serving, e.terminating))
        .collect();
    assert_eq!(
        conditions,
        [
            (true, true, false),
            (true, true, false),
            (false, true, true),
            (false, false, false)
        ]
    );
    assert_eq!(got.endpoints[0].node.as_deref(), Some("n1"));
    check(&got.endpoints[0].zone_hints, &expect![[r#"["a"]"#]]);
    expect![[r#"shop/web-1 ports[2].port: not set: a Service port has no "all ports", the port is ignored"#]]
        .assert_eq(&diagnostics.join("\n"));
}

#[test]
fn slices_by_address_type() {
    let make = |kind: Value, labels: Value, addresses: Value| {
        slice(json!({
            "metadata": {"name": "s", "namespace": "d", "labels": labels}, "addressType": kind,
            "endpoints": [{"addresses": addresses}],
        }))
    };
    let owned = || json!({"kubernetes.io/service-name": "web"});
    let (v6, none) = make("IPv6".into(), owned(), json!(["fd00::1"]));
    assert_eq!((v6.unwrap().family, none), (Family::V6, vec![]));

    let (mixed, said) = make("IPv4".into(), owned(), json!(["fd00::1", "x", "010.0.0.1"]));
    check(
        &mixed.unwrap().endpoints[0].addresses,
        &expect!["[10.0.0.1]"],
    );
    expect![[r#"
        d/s endpoints[0].addresses[0]: fd00::1 is not of the slice's addressType: not forwarded to
        d/s endpoints[0].addresses[1]: "x" is not an IP address: not forwarded to"#]]
    .assert_eq(&said.join("\n"));

    for (kind, labels, want) in [
        (
            json!("FQDN"),
            owned(),
            r#"d/s addressType: "FQDN" cannot be forwarded to: the slice is ignored"#,
        ),
        (
            Value::Null,
            owned(),
            r#"d/s addressType: "" cannot be forwarded to: the slice is ignored"#,
        ),
        (
            json!("IPv4"),
            json!({}),
            "d/s metadata.labels[kubernetes.io/service-name]: missing: the slice belongs to no Service and is ignored",
        ),
    ] {
        assert_eq!(
            make(kind, labels, json!(["10.0.0.1"])),
            (None, vec![want.to_owned()])
        );
    }
    let headless =
        json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""});
    assert_eq!(
        make("IPv4".into(), headless, json!(["10.0.0.1"])),
        (None, vec![])
    );
}

#[test]
fn nodes() {
    let (got, said) = node(json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64", "10.9.0.0/24"]},
        "status": {"addresses": [
            {"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "192.168.0.1"},
            {"type": "ExternalIP", "address": "198.51.100.1"}, {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "n1"},
        ]},
    }));
    check(&got.addresses, &expect!["[192.168.0.1, fd00::1]"]);
    assert_eq!(
        got.pod_cidrs,
        [
            "10.244.1.0/24".parse().unwrap(),
            "fd00:1::/64".parse().unwrap()
        ]
    );
    assert_eq!(got.zone.as_deref(), Some("a"));
    expect![[r#"
        /n1 status.addresses[4].address: "n1" is not an IP address: ignored
        /n1 spec.podCIDRs: 10.9.0.0/24 is the second prefix of its family: ignored"#]]
    .assert_eq(&said.join("\n"));

    let (old, said) =
        node(json!({"metadata": {"name": "n2"}, "spec": {"podCIDR": "10.244.2.0/24"}}));
    assert_eq!(
        (old.pod_cidrs, said),
        (vec!["10.244.2.0/24".parse().unwrap()], vec![])
    );
    let (fresh, said) = node(json!({"metadata": {"name": "n3"}}));
    assert_eq!((fresh.pod_cidrs, said), (vec![], vec![]));
}

#[test]
fn metadata_keeps_only_what_is_needed() {
    let object: wire::Node = serde_json::from_value(json!({
        "metadata": {"name": "n", "resourceVersion": "7", "annotations": {"a": "b"}, "managedFields": [{"manager": 7}]},
    }))
    .unwrap();
    assert_eq!(object.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(object.metadata.annotations, None);
}
