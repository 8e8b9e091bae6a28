//! What others do to a pod and its node behind our back: each thing that they take away is seen, and nothing else is held
//! against them.

use seaway_kernel::{Command, RouteSocket, sysctl};
use serde_json::{Value, json};

use crate::support::{Namespace, Node};

/// Sets something of the node; dots of links are slashes in keys.
fn set(node: &Node, key: &str, value: &str) {
    let done = node.space.netns.run(|| sysctl::write(key, value)).unwrap();
    done.unwrap();
}

async fn ip(space: &Namespace, args: &str) {
    let command = Command::new("ip").args(args.split(' '));
    command.netns(&space.netns).output().await.unwrap();
}

async fn nft(node: &Node, args: &str) {
    let command = Command::new("nft").args(args.split(' '));
    command.netns(&node.space.netns).output().await.unwrap();
}

fn name(result: &Value, interface: usize) -> String {
    let name = result["interfaces"][interface]["name"].as_str().unwrap();
    name.to_owned()
}

#[tokio::test]
async fn check_sees_settings_limits_and_rules_that_are_gone() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.1.0");
    config["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 80, "containerPort": 80 }],
        "bandwidth": { "egressRate": 8_000_000, "egressBurst": 800_000 },
    });
    for damage in ["rp_filter", "route_localnet", "limit", "table", "chain"] {
        let mut check = config.clone();
        let result = node
            .call("ADD", "c", &pod.path(), config.clone())
            .await
            .unwrap();
        let link = name(&result, 0);
        check["prevResult"] = result;
        node.call("CHECK", "c", &pod.path(), check.clone())
            .await
            .unwrap();
        match damage {
            "limit" => ip(&node.space, &format!("link set sb{} down", &link[2..])).await,
            "table" => nft(&node, "flush table inet seaway-cni").await,
            "chain" => nft(&node, "flush chain inet seaway-cni output").await,
            key => set(&node, &format!("net/ipv4/conf/{link}/{key}"), "0"),
        }
        let (code, message) = node
            .call("CHECK", "c", &pod.path(), check.clone())
            .await
            .unwrap_err();
        assert_eq!(code, 104, "{damage}: {message}");
        assert!(message.contains(damage) || damage == "limit" || damage == "chain");
        if damage == "rp_filter" {
            // The larger of the two counts.
            set(&node, "net.ipv4.conf.all.rp_filter", "2");
            let raised = node.call("CHECK", "c", &pod.path(), check).await;
            raised.unwrap();
            set(&node, "net.ipv4.conf.all.rp_filter", "0");
        }
        node.call("DEL", "c", &pod.path(), config.clone())
            .await
            .unwrap();
        nft(&node, "delete table inet seaway-cni").await;
    }
}

#[tokio::test]
async fn check_tolerates_other_links_that_come_later() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut result = node.add("c", &pod).await.unwrap();
    for command in [
        "link add net1 type bridge",
        "link set net1 up",
        "address add 10.77.0.1/24 dev net1",
        "route add default via 10.77.0.2 dev net1 metric 100",
    ] {
        ip(&pod, command).await;
    }
    node.check("c", &pod, &result).await.unwrap();
    // So does a pod that gave way to them, until its own rule is gone.
    node.del("c", &pod.path()).await.unwrap();
    result = node.add("c", &pod).await.unwrap();
    node.check("c", &pod, &result).await.unwrap();
    ip(&pod, "rule del from 10.244.1.2").await;
    let (code, message) = node.check("c", &pod, &result).await.unwrap_err();
    assert_eq!(code, 104);
    assert!(message.starts_with("there is no rule"), "{message}");
}

#[tokio::test]
async fn check_compares_the_mtu_of_the_pods_own_end() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.1.0");
    let mut result = node
        .call("ADD", "c", &pod.path(), config.clone())
        .await
        .unwrap();
    // As a later plugin does it, which says so.
    ip(&pod, "link set eth0 mtu 1400").await;
    result["interfaces"][1]["mtu"] = 1400.into();
    config["prevResult"] = result;
    node.call("CHECK", "c", &pod.path(), config).await.unwrap();
}

#[tokio::test]
async fn gc_removes_limits_whose_pair_is_gone() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let (pod, other) = (Namespace::new("pod"), Namespace::new("pod"));
    let limits = json!({ "bandwidth": { "egressRate": 8_000_000, "egressBurst": 800_000 } });
    let mut host = RouteSocket::in_namespace(&node.space.netns).unwrap();
    let mut devices = || -> Vec<String> {
        let names = host.links().unwrap().into_iter().map(|link| link.name);
        names.filter(|name| name.starts_with("sb")).collect()
    };
    for (id, pod) in [("gone", &pod), ("other", &other)] {
        // As another plugin makes it.
        let node_end = format!("veth-{id}");
        let pair = format!(
            "link add eth0 type veth peer name {node_end} netns {}",
            node.space.name()
        );
        ip(pod, &pair).await;
        let mut config = node.config("1.1.0");
        // GC is of one network, and these are of another.
        config["name"] = "chained".into();
        config["prevResult"] = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": node_end }, { "name": "eth0", "sandbox": pod.path() }],
            "ips": [{ "address": "10.88.0.5/16", "interface": 1 }],
        });
        config["runtimeConfig"] = limits.clone();
        node.call("ADD", id, &pod.path(), config).await.unwrap();
    }
    let both = devices();
    assert_eq!(both.len(), 2);
    ip(&node.space, "link delete veth-gone").await;
    let mut gc = node.config("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([]);
    node.call("GC", "", "", gc).await.unwrap();
    assert_eq!(devices(), both[1..], "that of the pair that is there");
}

#[tokio::test]
async fn a_pod_where_ipv6_is_switched_off_gets_it_on_its_interface() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let pod = Namespace::new("pod");
    let off = || sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").map(drop);
    for space in [&pod, &node.space] {
        space.netns.run(off).unwrap().unwrap();
    }
    let result = node.add("c", &pod).await.unwrap();
    node.check("c", &pod, &result).await.unwrap();
    assert!(crate::pods::reaches(&node.space, &pod, "fd00:1::1"));
}

#[tokio::test]
async fn status_does_not_ask_for_ranges_that_come_with_add() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let mut config = node.config("1.1.0");
    config["ipam"] = json!({ "type": "host-local" });
    node.call("STATUS", "", "", config.clone()).await.unwrap();
    let pod = Namespace::new("pod");
    let error = node.call("ADD", "c", &pod.path(), config).await;
    assert_eq!(error.unwrap_err().0, 7);
}

#[tokio::test]
async fn routes_of_the_config_may_have_host_bits_and_come_twice() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({
        "type": "host-local",
        "subnet": "10.12.0.0/24",
        "routes": [{ "dst": "10.1.2.3/8" }, { "dst": "10.0.0.0/8" }, { "dst": "10.12.0.0/24" }, { "dst": "0.0.0.0/0" }],
    });
    for (name, id) in [("seaway-cni", "c"), ("ptp", "d")] {
        let attachment = (id, &*pod.path());
        let mut check = config.clone();
        check["prevResult"] = node
            .call_as(name, "ADD", attachment, &[], &config)
            .await
            .unwrap();
        node.call_as(name, "CHECK", attachment, &[], &check)
            .await
            .unwrap();
        node.call_as(name, "DEL", attachment, &[], &config)
            .await
            .unwrap();
    }
}
