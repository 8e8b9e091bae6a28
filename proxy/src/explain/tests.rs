use std::net::IpAddr;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use seaway_model::testing::plain;
use seaway_model::{DirectAnswers, Endpoint, InputEvent, Node, Protocol, ServicePort, derive_all};

use super::*;

const NODE: &str = "n1";

fn endpoint(ip: &str, conditions: &str, node: &str) -> Endpoint {
    plain::endpoint(ip.parse().unwrap(), conditions, Some(node))
}

fn in_zone(mut endpoint: Endpoint, zone: &str) -> Endpoint {
    endpoint.zone_hints = [zone.into()].into();
    endpoint
}

fn service() -> Service {
    let port = ServicePort {
        node_port: Some(30080),
        ..plain::port("http", Protocol::Tcp, 80)
    };
    Service {
        load_balancer_ips: vec!["192.0.2.1".parse().unwrap()],
        external_ips: vec!["198.51.100.1".parse().unwrap()],
        ..plain::service("web", vec!["10.96.0.10".parse().unwrap()], vec![port])
    }
}

fn inputs(service: Service, endpoints: Vec<Endpoint>) -> Inputs {
    let target = plain::target("http", Protocol::Tcp, 8080);
    let slice = plain::slice("web-abc", "web", Family::V4, target, endpoints);
    let node = Node {
        name: NODE.into(),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        zone: Some("a".into()),
        draining: false,
        direct_answers: DirectAnswers::No,
    };
    let mut inputs = Inputs::default();
    for event in [
        InputEvent::Node(NODE.into(), Some(node)),
        InputEvent::Service(service.key.clone(), Some(service)),
        InputEvent::Slice(slice.key.clone(), Some(slice)),
    ] {
        inputs.apply(event);
    }
    inputs
}

fn ask(inputs: &Inputs, source: &str, destination: &str) -> Explanation {
    let source: IpAddr = source.parse().unwrap();
    let packet = Packet {
        source,
        destination: destination.parse().unwrap(),
        protocol: Protocol::Tcp,
        origin: match source.to_string().as_str() {
            "192.168.1.1" => Origin::NodeProcess,
            pod if pod.starts_with("10.244.1.") => Origin::LocalPod,
            _ => Origin::External,
        },
    };
    let node = NodeContext {
        addresses: vec!["192.168.1.1".parse().unwrap()],
        detect_local: DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]),
        ..NodeContext::default()
    };
    let settings = NodeSettings::new(NODE);
    let (desired, _) = derive_all(inputs, &settings);
    let world = World {
        inputs,
        desired: &desired,
        node: &node,
        settings: &settings,
    };
    explain(world, &packet)
}

fn check(inputs: &Inputs, source: &str, destination: &str, expected: &Expect) {
    expected.assert_eq(&ask(inputs, source, destination).to_string());
}

#[test]
fn a_cluster_ip_with_every_kind_of_endpoint() {
    let inputs = inputs(
        service(),
        vec![
            in_zone(endpoint("10.244.1.2", "rs", NODE), "a"),
            in_zone(endpoint("10.244.2.2", "rs", "n2"), "b"),
            endpoint("10.244.2.3", "st", "n2"),
            endpoint("10.244.2.4", "t", "n2"),
            endpoint("10.244.2.5", "", "n2"),
        ],
    );
    check(
        &inputs,
        "10.244.1.9",
        "10.96.0.10:80",
        &expect![[r#"
        packet: tcp from 10.244.1.9 (a pod of this node) to 10.96.0.10:80
        verdict: goes to 10.244.1.2:8080, the only endpoint
        service: default/web, port "http", by its cluster IP (spec.clusterIPs)
        policy: Cluster, endpoints of all nodes (spec.internalTrafficPolicy)
        source address: kept: the client is a pod (--cluster-cidr: 10.244.0.0/16)
        endpoints:
          10.244.1.2:8080 (this node; EndpointSlice web-abc, endpoints[0]): used
          10.244.2.2:8080 (node n2; EndpointSlice web-abc, endpoints[1]): left out: meant for zone b, this node is in a (hints.forZones)
          10.244.2.3:8080 (node n2; EndpointSlice web-abc, endpoints[2]): left out: it terminates (conditions.terminating), and others are ready
          10.244.2.4:8080 (node n2; EndpointSlice web-abc, endpoints[3]): left out: it terminates and serves no more (conditions.terminating, conditions.serving)
          10.244.2.5:8080 (node n2; EndpointSlice web-abc, endpoints[4]): left out: not ready (conditions.ready)
    "#]],
    );
}

#[test]
fn hints_that_decide_nothing_say_why() {
    let half = vec![
        in_zone(endpoint("10.244.1.2", "rs", NODE), "a"),
        endpoint("10.244.2.2", "rs", "n2"),
    ];
    let text = ask(&inputs(service(), half), "10.244.1.9", "10.96.0.10:80").to_string();
    assert!(
        text.contains("zone hints decide nothing: 10.244.2.2:8080 has none"),
        "{text}"
    );
    let elsewhere = vec![in_zone(endpoint("10.244.2.2", "rs", "n2"), "b")];
    let text = ask(&inputs(service(), elsewhere), "10.244.1.9", "10.96.0.10:80").to_string();
    assert!(
        text.contains("zone hints decide nothing: no ready endpoint is meant for zone a"),
        "{text}"
    );
}

#[test]
fn an_outside_client_of_policy_local_and_one_inside() {
    let mut local = service();
    local.external_policy = TrafficPolicy::Local;
    local.affinity = Some(std::time::Duration::from_secs(30));
    let inputs = inputs(local, vec![endpoint("10.244.2.2", "rs", "n2")]);
    check(
        &inputs,
        "203.0.113.9",
        "192.168.1.1:30080",
        &expect![[r#"
        packet: tcp from 203.0.113.9 (outside of the cluster) to 192.168.1.1:30080
        verdict: dropped without an answer
        service: default/web, port "http", by its node port (spec.ports[0].nodePort)
        policy: Local, endpoints of this node (spec.externalTrafficPolicy)
        because: there are endpoints, but none on this node; one here, or policy Cluster, would change that
        endpoints:
          10.244.2.2:8080 (node n2; EndpointSlice web-abc, endpoints[0]): left out: not on this node, and the policy is Local (nodeName)
    "#]],
    );
    check(
        &inputs,
        "192.168.1.1",
        "192.0.2.1:80",
        &expect![[r#"
        packet: tcp from 192.168.1.1 (a process of this node) to 192.0.2.1:80
        verdict: goes to 10.244.2.2:8080, the only endpoint
        service: default/web, port "http", by a load balancer address (status.loadBalancer.ingress)
        policy: Cluster, endpoints of all nodes: spec.externalTrafficPolicy: Local is for clients outside of the cluster, one inside is served as at the cluster IP
        source address: replaced by the node's: the client is this node (--cluster-cidr: 10.244.0.0/16)
        affinity: a client keeps its endpoint until 30 s after its last new connection (spec.sessionAffinity: ClientIP)
        endpoints:
          10.244.2.2:8080 (node n2; EndpointSlice web-abc, endpoints[0]): used
    "#]],
    );
}

#[test]
fn refusals_name_their_field() {
    let mut ranged = service();
    ranged.source_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    let inputs = inputs(ranged, vec![endpoint("10.244.1.2", "rs", NODE)]);
    check(
        &inputs,
        "203.0.113.9",
        "192.0.2.1:80",
        &expect![[r#"
        packet: tcp from 203.0.113.9 (outside of the cluster) to 192.0.2.1:80
        verdict: dropped without an answer
        service: default/web, port "http", by a load balancer address (status.loadBalancer.ingress)
        source ranges: 203.0.113.9 is in none of 10.0.0.0/8 (spec.loadBalancerSourceRanges)
    "#]],
    );
    for (to, expected) in [
        ("198.51.100.1:80", "outside of --external-ip-cidrs"),
        ("10.96.0.10:81", "has this address, with port 80/tcp"),
        ("127.0.0.1:30080", "does not answer on loopback"),
        (
            "192.168.1.2:30080",
            "192.168.1.2 is no address of this node",
        ),
        ("8.8.8.8:53", "no Service has the address 8.8.8.8"),
    ] {
        let text = ask(&inputs, "203.0.113.9", to).to_string();
        assert!(text.contains(expected), "{to}: {text}");
    }
}

#[test]
fn no_endpoints_and_no_slices() {
    let unready = inputs(service(), vec![endpoint("10.244.1.2", "", NODE)]);
    let text = ask(&unready, "10.244.1.9", "10.96.0.10:80").to_string();
    assert!(text.contains("verdict: refused at once"), "{text}");
    assert!(text.contains("a ready one would change that"), "{text}");
    let mut bare = Inputs::default();
    bare.apply(InputEvent::Service(service().key, Some(service())));
    let text = ask(&bare, "10.244.1.9", "10.96.0.10:80").to_string();
    assert!(text.contains("no EndpointSlice has the label"), "{text}");
}

#[test]
fn hairpin() {
    let inputs = inputs(
        service(),
        vec![
            endpoint("10.244.1.2", "rs", NODE),
            endpoint("10.244.2.2", "rs", "n2"),
        ],
    );
    let text = ask(&inputs, "10.244.1.2", "10.96.0.10:80").to_string();
    assert!(
        text.contains("kept, but at 10.244.1.2:8080, which is the client itself"),
        "{text}"
    );
}

proptest! {
    /// Whatever the endpoints are like: those called used are those that the oracle delivers to, and each of the
    /// others has a reason.
    #[test]
    fn the_endpoints_called_used_are_the_oracles(
        conditions in prop::collection::vec((any::<[bool; 3]>(), 0..3_usize, 0..3_usize), 0..6),
        local in any::<bool>(),
        source in prop::sample::select(vec!["10.244.1.9", "203.0.113.9", "192.168.1.1"]),
        to in prop::sample::select(vec!["10.96.0.10:80", "192.168.1.1:30080"]),
    ) {
        let endpoints = conditions.iter().enumerate().map(|(i, ([ready, serving, terminating], node, zone))| {
            let mut endpoint = endpoint(&format!("10.244.3.{i}"), "", ["n1", "n2", "n3"][*node]);
            (endpoint.ready, endpoint.serving, endpoint.terminating) = (*ready, *serving, *terminating);
            if let Some(zone) = ["a", "b"].get(*zone) {
                endpoint.zone_hints = [(*zone).into()].into();
            }
            endpoint
        });
        let mut service = service();
        if local {
            service.internal_policy = TrafficPolicy::Local;
            service.external_policy = TrafficPolicy::Local;
        }
        let answer = ask(&inputs(service, endpoints.collect()), source, to);
        let delivered: BTreeSet<String> = answer.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Deliver { backend, .. } => Some(backend.to_string()),
            _ => None,
        }).collect();
        let text = answer.to_string();
        let used: BTreeSet<String> = text
            .lines()
            .filter(|line| line.contains("): used"))
            .filter_map(|line| Some(line.trim().split_once(' ')?.0.to_owned()))
            .collect();
        prop_assert_eq!(used, delivered, "{}", text);
        prop_assert!(!text.contains("not usable"), "{}", text);
    }
}

#[test]
fn for_programs() {
    let endpoints = || {
        vec![
            in_zone(endpoint("10.244.1.2", "rs", NODE), "a"),
            in_zone(endpoint("10.244.2.2", "rs", "n2"), "b"),
        ]
    };
    let json = |service: Service, endpoints, to| {
        let answer = ask(&inputs(service, endpoints), "10.244.1.9", to);
        serde_json::to_string_pretty(&answer).unwrap()
    };
    expect![[r#"
        {
          "packet": {
            "protocol": "tcp",
            "source": "10.244.1.9",
            "sourceIs": "a pod of this node",
            "destination": "10.96.0.10:80"
          },
          "verdict": "deliver",
          "service": {
            "name": "default/web",
            "port": "http",
            "by": "ClusterIP",
            "field": "spec.clusterIPs",
            "sourceRanges": null,
            "policy": {
              "name": "Cluster",
              "field": "spec.internalTrafficPolicy",
              "reason": null
            },
            "because": null,
            "sourceAddress": {
              "kept": true,
              "butAt": null,
              "reason": "the client is a pod",
              "pods": "--cluster-cidr: 10.244.0.0/16"
            },
            "affinitySeconds": null,
            "endpoints": [
              {
                "address": "10.244.1.2:8080",
                "node": "n1",
                "here": true,
                "slice": "web-abc",
                "index": 0,
                "used": true,
                "reason": null
              },
              {
                "address": "10.244.2.2:8080",
                "node": "n2",
                "here": false,
                "slice": "web-abc",
                "index": 1,
                "used": false,
                "reason": "meant for zone b, this node is in a (hints.forZones)"
              }
            ],
            "noEndpoints": null,
            "zoneHintsIgnored": null
          },
          "reasons": []
        }"#]]
    .assert_eq(&json(service(), endpoints(), "10.96.0.10:80"));
    // The same keys where there is no answer to give.
    let closed = Service {
        source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        ..service()
    };
    expect![[r#"
        {
          "packet": {
            "protocol": "tcp",
            "source": "10.244.1.9",
            "sourceIs": "a pod of this node",
            "destination": "192.0.2.1:80"
          },
          "verdict": "drop",
          "service": {
            "name": "default/web",
            "port": "http",
            "by": "LoadBalancer",
            "field": "status.loadBalancer.ingress",
            "sourceRanges": {
              "admitted": false,
              "ranges": [
                "203.0.113.0/24"
              ]
            },
            "policy": null,
            "because": null,
            "sourceAddress": null,
            "affinitySeconds": null,
            "endpoints": [],
            "noEndpoints": null,
            "zoneHintsIgnored": null
          },
          "reasons": []
        }"#]]
    .assert_eq(&json(closed, endpoints(), "192.0.2.1:80"));
    expect![[r#"
        {
          "packet": {
            "protocol": "tcp",
            "source": "10.244.1.9",
            "sourceIs": "a pod of this node",
            "destination": "10.96.0.10:81"
          },
          "verdict": "reject",
          "service": null,
          "reasons": [
            "service: default/web has this address, with port 80/tcp (spec.ports)",
            "because: an address of a Service has only the ports of that Service; others are refused"
          ]
        }"#]].assert_eq(&json(service(), Vec::new(), "10.96.0.10:81"));
}
