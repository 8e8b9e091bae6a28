use super::*;

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
        n1 status.addresses[4].address: "n1" is not an IP address: ignored
        n1 spec.podCIDRs: 10.9.0.0/24 is the second prefix of its family: ignored"#]]
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

#[test]
fn a_node_drains_while_it_is_deleted_or_has_the_taint_of_the_autoscaler() {
    for (metadata, spec, want) in [
        (json!({"name": "n"}), json!({}), false),
        (
            json!({"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
            json!({}),
            true,
        ),
        (
            json!({"name": "n", "deletionTimestamp": null}),
            json!({"taints": null}),
            false,
        ),
        (
            json!({"name": "n"}),
            json!({"taints": [{"key": "other", "effect": "NoSchedule"}]}),
            false,
        ),
        (
            json!({"name": "n"}),
            json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}]}),
            true,
        ),
        (json!({"name": "n"}), json!({"unschedulable": true}), false),
    ] {
        let (got, said) = node(json!({"metadata": metadata, "spec": spec}));
        assert_eq!((got.draining, said), (want, vec![]), "{metadata} {spec}");
    }
}
