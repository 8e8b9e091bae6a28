use expect_test::expect;

use super::*;

fn held() -> Held {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let masquerade = |family, to_pods, to_others| Masquerade {
        family,
        to_pods: ip(to_pods),
        to_others: ip(to_others),
    };
    let attached = |name: &str, to, filter: Option<&str>| Attached {
        name: name.into(),
        to,
        program: 7,
        filter: filter.map(str::to_owned),
    };
    Held {
        pins: "/sys/fs/bpf/seaway/v3".into(),
        loaded: Some(Loaded {
            node_addresses: vec![NodeAddress {
                address: ip("192.168.1.1"),
                node_ports: false,
            }],
            masquerade: [
                masquerade(Family::V4, "10.244.1.0", "192.168.1.1"),
                masquerade(Family::V6, "::", "::"),
            ],
            ports: [61_000, 61_999],
            overlay_link: 0,
            past_the_stack: true,
            pods: vec![Pod {
                address: ip("10.244.1.2"),
                link: 5,
                past_the_stack: false,
            }],
            peers: vec![
                Peer {
                    network: "10.244.2.0/24".parse().unwrap(),
                    node: Some(ip("192.168.1.2")),
                    vni: 1,
                },
                Peer {
                    network: "10.244.2.9/32".parse().unwrap(),
                    node: None,
                    vni: 0,
                },
            ],
            attached: vec![
                attached("connect4", Target::Cgroup(1), None),
                attached("tcx_5_in", Target::Gone, None),
                attached("filter_5_in", Target::Link(5), Some("seaway_in")),
            ],
            frontends: vec![Frontend {
                frontend: "10.96.0.10:80/tcp".into(),
                service: Some("default/web".into()),
                target: "ClusterIP -> set 1 (1)".into(),
            }],
            backend_sets: [(1, vec!["10.244.1.2:8080(local)".to_owned()])].into(),
            source_ranges: [(2, vec!["203.0.113.0/24".to_owned()])].into(),
            maps: vec![Map {
                name: "FLOWS",
                entries: 3,
                max_entries: 131_072,
                memory_bytes: 4096,
                evictions: Some(1),
            }],
            flows: BTreeSet::new(),
            flow_entries: 0,
            counters: vec![("new_flow", 4), ("forward", 2)],
        }),
    }
}

#[test]
fn for_people() {
    expect![[r#"
        pins: /sys/fs/bpf/seaway/v3
        node addresses: 192.168.1.1 (no node ports)
        IPv4: masquerade to pods with 10.244.1.0, to others with 192.168.1.1
        IPv6: masquerade to pods with ::, to others with ::
        ports 61000-61999; overlay link 0
        packets between pods: past the stack
          10.244.1.2 at link 5, through the stack
          10.244.2.0/24 at node 192.168.1.2, VNI 1
          10.244.2.9/32 elsewhere, through the stack
        attached:
          connect4: cgroup 1, program 7
          tcx_5_in: GONE, program 7
          filter_5_in: link 5, program 7 (seaway_in)
        frontends:
          10.96.0.10:80/tcp default/web ClusterIP -> set 1 (1)
        backend sets:
          1: 10.244.1.2:8080(local)
        source ranges:
          2: 203.0.113.0/24
        maps:
          FLOWS              3 of  131072 entries,      4 KiB, 1 pushed out
        flows: 0 (0 entries)
        counters:
          new_flow             4
          forward              2
    "#]]
    .assert_eq(&held().to_string());
    let nothing = Held {
        loaded: None,
        ..held()
    };
    assert_eq!(
        nothing.to_string(),
        "pins: /sys/fs/bpf/seaway/v3\nnothing is loaded\n"
    );
}

#[test]
fn for_programs() {
    let json = serde_json::to_string_pretty(&held()).unwrap();
    expect![[r#"
        {
          "pins": "/sys/fs/bpf/seaway/v3",
          "loaded": {
            "nodeAddresses": [
              {
                "address": "192.168.1.1",
                "nodePorts": false
              }
            ],
            "masquerade": [
              {
                "family": "IPv4",
                "toPods": "10.244.1.0",
                "toOthers": "192.168.1.1"
              },
              {
                "family": "IPv6",
                "toPods": "::",
                "toOthers": "::"
              }
            ],
            "ports": [
              61000,
              61999
            ],
            "overlayLink": 0,
            "pastTheStack": true,
            "pods": [
              {
                "address": "10.244.1.2",
                "link": 5,
                "pastTheStack": false
              }
            ],
            "peers": [
              {
                "network": "10.244.2.0/24",
                "node": "192.168.1.2",
                "vni": 1
              },
              {
                "network": "10.244.2.9/32",
                "node": null,
                "vni": 0
              }
            ],
            "attached": [
              {
                "name": "connect4",
                "to": {
                  "cgroup": 1
                },
                "program": 7,
                "filter": null
              },
              {
                "name": "tcx_5_in",
                "to": "gone",
                "program": 7,
                "filter": null
              },
              {
                "name": "filter_5_in",
                "to": {
                  "link": 5
                },
                "program": 7,
                "filter": "seaway_in"
              }
            ],
            "frontends": [
              {
                "frontend": "10.96.0.10:80/tcp",
                "service": "default/web",
                "target": "ClusterIP -> set 1 (1)"
              }
            ],
            "backendSets": {
              "1": [
                "10.244.1.2:8080(local)"
              ]
            },
            "sourceRanges": {
              "2": [
                "203.0.113.0/24"
              ]
            },
            "maps": [
              {
                "name": "FLOWS",
                "entries": 3,
                "maxEntries": 131072,
                "memoryBytes": 4096,
                "evictions": 1
              }
            ],
            "flows": 0,
            "flowEntries": 0,
            "counters": {
              "new_flow": 4,
              "forward": 2
            }
          }
        }"#]]
    .assert_eq(&json);
}
