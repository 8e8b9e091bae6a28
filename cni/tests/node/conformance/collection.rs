//! Section "Operations": GC.

use serde_json::{Value, json};

use super::VERSIONS;
use crate::support::{Namespace, Node, address};

fn gc(node: &Node, valid: &Value) -> Value {
    let mut config = node.config("1.1.0");
    config["cni.dev/valid-attachments"] = valid.clone();
    config["cni.dev/attachments"] = valid.clone();
    config
}

#[tokio::test]
async fn g02_and_g05_gc_removes_everything_that_is_not_valid() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let (one, two) = (Namespace::new("pod"), Namespace::new("pod"));
    let kept = node.add("one", &one).await.unwrap();
    let mut config = node.config("1.1.0");
    config["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 80, "containerPort": 80 }],
        "bandwidth": { "egressRate": 8000, "egressBurst": 80_000 },
    });
    node.call("ADD", "two", &two.path(), config).await.unwrap();
    drop(two);
    let valid = json!([{ "containerID": "one", "ifname": "eth0" }]);
    node.call("GC", "", "", gc(&node, &valid)).await.unwrap();
    assert_eq!(node.leases().await, [address(&kept)]);
    assert_eq!(node.pod_links().await.len(), 1);
    let links = node.space.netlink().links().await.unwrap();
    assert!(!links.iter().any(|link| link.name.starts_with("sb")));
    node.check("one", &one, &kept).await.unwrap();
}

#[tokio::test]
async fn g03_and_g04_a_failure_does_not_stop_gc() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    node.add("c", &pod).await.unwrap();
    node.script("failing", "echo '{\"code\":99,\"msg\":\"broken\"}'; exit 1");
    let mut config = gc(&node, &json!([]));
    config["ipam"] = json!({ "type": "failing" });
    let error = node
        .call_as("seaway-cni", "GC", ("", ""), &[], &config)
        .await
        .unwrap_err();
    assert_eq!(error, (99, "broken".to_owned()));
    // All the rest was done.
    assert_eq!(node.leases().await.len(), 0);
}

#[tokio::test]
async fn g07_the_list_may_be_null_or_empty_but_not_absent() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for valid in [Value::Null, json!([])] {
        let pod = Namespace::new("pod");
        node.add("c", &pod).await.unwrap();
        let error = node
            .call("GC", "", "", node.config("1.1.0"))
            .await
            .unwrap_err();
        assert_eq!(error.0, 7);
        assert_eq!(node.leases().await.len(), 1);
        assert_eq!(
            node.call("GC", "", "", gc(&node, &valid)).await.unwrap(),
            Value::Null
        );
        assert_eq!(node.leases().await.len(), 0);
    }
    for version in VERSIONS {
        let mut config = gc(&node, &json!([]));
        config["cniVersion"] = version.into();
        assert_eq!(
            node.call("GC", "", "", config).await.is_ok(),
            version == "1.1.0"
        );
    }
}

#[tokio::test]
async fn g08_gc_of_another_network_touches_nothing() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("c", &pod).await.unwrap();
    let mut config = gc(&node, &json!([]));
    config["name"] = "other".into();
    node.call("GC", "", "", config).await.unwrap();
    node.check("c", &pod, &result).await.unwrap();
}
