//! What must hold for every kind, and the rules of the small ones.

use serde_json::{Value, json};

use super::*;

fn kind(group: &str, plural: &str) -> &'static Kind {
    find(group, "v1", plural).unwrap()
}

/// An object as a client would send it.
fn sample(kind: &Kind) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut object = match kind.kind {
        "Pod" => json!({"spec": template["spec"]}),
        "Deployment" | "ReplicaSet" => {
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
        }
        "Service" => {
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}})
        }
        "EndpointSlice" => json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [
            {"addresses": ["10.0.0.1"]}]}),
        "Event" if kind.group.is_empty() => json!({"involvedObject": {"namespace": "default"}}),
        "Event" => json!({"regarding": {"namespace": "default"}}),
        "Secret" => json!({"stringData": {"a": "b"}}),
        _ => json!({}),
    };
    object["metadata"] = json!({"name": "web", "namespace": "default"});
    object
}

fn created(kind: &Kind, mut object: Value) -> (Value, Vec<String>) {
    kind.default(&mut object);
    kind.prepare_create(&mut object);
    let errors = kind
        .validate(&object, None)
        .iter()
        .map(ToString::to_string)
        .collect();
    (object, errors)
}

fn updated(kind: &Kind, old: &Value, change: impl Fn(&mut Value)) -> Vec<String> {
    let mut new = old.clone();
    change(&mut new);
    kind.default(&mut new);
    kind.prepare_update(&mut new, old);
    kind.validate(&new, Some(old))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn defaults_settle_and_an_unchanged_update_changes_nothing() {
    for kind in all() {
        let (object, errors) = created(kind, sample(kind));
        assert_eq!(errors, Vec::<String>::new(), "{}", kind.kind);
        let mut again = object.clone();
        kind.default(&mut again);
        assert_eq!(again, object, "{}", kind.kind);
        kind.prepare_update(&mut again, &object);
        assert!(
            crate::meta::unchanged(&again, &object),
            "{}: {again} {object}",
            kind.kind
        );
        kind.prepare_status_update(&mut again, &object);
        assert!(crate::meta::unchanged(&again, &object), "{}", kind.kind);
    }
}

#[test]
fn names_are_found_once() {
    for one in all() {
        assert!(std::ptr::eq(
            find(one.group, one.version, one.plural).unwrap(),
            *one
        ));
    }
    assert_eq!(
        kind("apps", "deployments").qualified_resource(),
        "deployments.apps"
    );
    assert_eq!(kind("", "pods").qualified_kind(), "Pod");
    assert_eq!(kind("events.k8s.io", "events").storage(), ("", "events"));
}

#[test]
fn the_main_resource_takes_no_status() {
    for kind in all()
        .iter()
        .filter(|kind| kind.subresource("status").is_some() && kind.kind != "Node")
    {
        let mut object = sample(kind);
        object["status"] = json!({"forged": true});
        let (object, _) = created(kind, object);
        assert!(object.pointer("/status/forged").is_none(), "{}", kind.kind);
        let mut new = object.clone();
        new["status"] = json!({"forged": true});
        kind.prepare_update(&mut new, &object);
        assert_eq!(new.get("status"), object.get("status"), "{}", kind.kind);
    }
}

#[test]
fn namespaces_carry_label_and_finalizer() {
    let (object, _) = created(
        kind("", "namespaces"),
        json!({"metadata": {"name": "shop"}}),
    );
    assert_eq!(
        object["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "shop"
    );
    let relabelled =
        json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "other"}}});
    assert_eq!(
        created(kind("", "namespaces"), relabelled).0["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "shop"})
    );
    assert_eq!(object["spec"]["finalizers"], json!(["kubernetes"]));
    let done = finalize_namespace(&object, &json!({"spec": {"finalizers": []}}));
    assert!(done["spec"].get("finalizers").is_none());
}

#[test]
fn nodes_start_tainted_and_keep_their_addresses() {
    let nodes = kind("", "nodes");
    let (mut node, errors) = created(
        nodes,
        json!({"metadata": {"name": "n1"}, "status": {"capacity": {"pods": "9"}}}),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        node["spec"]["taints"][0]["key"],
        "node.kubernetes.io/not-ready"
    );
    assert_eq!(node["status"]["allocatable"]["pods"], "9");
    node["spec"]["podCIDR"] = "10.244.1.0/24".into();
    node["spec"]["podCIDRs"] = json!(["10.244.1.0/24"]);
    let errors = updated(nodes, &node, |n| {
        n["spec"]["podCIDR"] = "10.244.2.0/24".into();
    });
    assert_eq!(
        errors,
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
    let alone = json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": "bogus"}});
    let (alone, errors) = created(nodes, alone);
    assert_eq!(alone["spec"]["podCIDRs"], json!(["bogus"]));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(
        updated(nodes, &node, |n| n["spec"] = json!({})),
        Vec::<String>::new()
    );
    let taint = json!({"key": "a b", "effect": "Never"});
    let errors = updated(nodes, &node, |n| n["spec"]["taints"] = json!([taint]));
    assert!(
        errors[0]
            .starts_with("spec.taints[0].key: Invalid value: \"a b\": name part must consist of")
    );
    assert!(
        errors[1]
            .starts_with("spec.taints[0].effect: Unsupported value: \"Never\": supported values:")
    );
}

#[test]
fn secrets_fold_texts_into_data() {
    let secrets = kind("", "secrets");
    let (object, errors) = created(
        secrets,
        json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(object["data"], json!({"a": "Yg=="}));
    assert_eq!(object["type"], "Opaque");
    assert!(object.get("stringData").is_none());
    let errors = updated(secrets, &object, |s| s["type"] = "other".into());
    assert_eq!(
        errors,
        ["type: Invalid value: \"other\": field is immutable"]
    );
    let (_, errors) = created(
        secrets,
        json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"}),
    );
    assert_eq!(
        errors,
        [
            "data[tls.crt]: Required value",
            "data[tls.key]: Required value"
        ]
    );
}

#[test]
fn immutable_config_maps_stay() {
    let maps = kind("", "configmaps");
    let (object, _) = created(
        maps,
        json!({"metadata": {"name": "c"}, "data": {"a": "b"}, "immutable": true}),
    );
    let errors = updated(maps, &object, |c| c["data"]["a"] = "c".into());
    assert_eq!(
        errors,
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let errors = updated(maps, &object, |c| c["immutable"] = false.into());
    assert_eq!(
        errors,
        ["immutable: Forbidden: field is immutable when `immutable` is set"]
    );
}

#[test]
fn slices_are_checked() {
    let slices = kind("discovery.k8s.io", "endpointslices");
    let slice = |kind: &str, address: &str| json!({"metadata": {"name": "s"}, "addressType": kind, "endpoints": [{"addresses": [address]}]});
    let cases = [
        (slice("IPv4", "10.0.0.1"), None),
        (slice("IPv6", "fd00::1"), None),
        (
            slice("IPv4", "fd00::1"),
            Some("endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address"),
        ),
        (slice("", "10.0.0.1"), Some("addressType: Required value")),
        (
            slice("IPX", "1"),
            Some(
                "addressType: Unsupported value: \"IPX\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            ),
        ),
    ];
    for (object, expected) in cases {
        let errors = created(slices, object).1;
        assert_eq!(errors.first().map(String::as_str), expected);
    }
    let (object, _) = created(slices, slice("IPv4", "10.0.0.1"));
    assert_eq!(object["metadata"]["generation"], 1);
    let errors = updated(slices, &object, |s| *s = slice("IPv6", "fd00::1"));
    assert_eq!(
        errors,
        ["addressType: Invalid value: \"IPv6\": field is immutable"]
    );
}

#[test]
fn metadata_rules_are_shared() {
    let maps = kind("", "configmaps");
    let cases = [
        (
            json!({}),
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            json!({"name": "c", "finalizers": ["mine"]}),
            "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully \
             qualified",
        ),
        (
            json!({"name": "c", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
        ),
    ];
    for (metadata, expected) in cases {
        assert_eq!(created(maps, json!({ "metadata": metadata })).1, [expected]);
    }
    let (mut object, _) = created(maps, json!({"metadata": {"name": "c"}}));
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let errors = updated(maps, &object, |o| {
        o["metadata"]["finalizers"] = json!(["a.b/c"]);
    });
    assert_eq!(
        errors,
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
          finalizers []string{\"a.b/c\"}"
        ]
    );
}

#[test]
fn invalid_objects_are_reported_with_every_cause() {
    let services = kind("", "services");
    let errors = [
        FieldError::invalid(
            "spec.ports[0].port",
            0,
            "must be between 1 and 65535, inclusive",
        ),
        FieldError::required("spec.type", ""),
    ];
    let status = crate::status::Status::invalid(services, "web", &errors[..1]);
    assert_eq!(
        status.message,
        "Service \"web\" is invalid: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
    );
    let status = crate::status::Status::invalid(services, "web", &errors);
    assert!(
        status
            .message
            .starts_with("Service \"web\" is invalid: [spec.ports[0].port: "),
        "{}",
        status.message
    );
    let causes = &status.body()["details"]["causes"];
    assert_eq!(causes[0]["field"], "spec.ports[0].port");
    assert_eq!(
        causes[1],
        json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.type"})
    );
}
