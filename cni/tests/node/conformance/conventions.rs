//! Conventions: what runtimes send through capabilities and arguments.

use seaway_kernel::{Nftables, RouteSocket};
use serde_json::{Value, json};

use crate::support::{Namespace, Node, address};

async fn add(
    node: &Node,
    id: &str,
    pod: &Namespace,
    runtime: Value,
) -> Result<Value, (u64, String)> {
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = runtime;
    node.call("ADD", id, &pod.path(), config).await
}

#[tokio::test]
async fn q01_port_mappings_of_every_form() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let list = json!([
        { "hostPort": 1, "containerPort": 10 },
        { "hostPort": 2, "containerPort": 10, "protocol": "TCP", "hostIP": "" },
        { "hostPort": 3, "containerPort": 10, "protocol": "Udp", "hostIP": "0.0.0.0" },
        { "hostPort": 4, "containerPort": 10, "protocol": "sctp", "hostIP": "192.0.2.1" },
        // Of a family that the pod does not have.
        { "hostPort": 5, "containerPort": 10, "hostIP": "::" },
        { "hostPort": 0, "containerPort": 10 },
        { "containerPort": 10 },
    ]);
    add(&node, "c", &pod, json!({ "portMappings": list }))
        .await
        .unwrap();
    let mut nft = Nftables::in_namespace(&node.space.netns).unwrap();
    let mut ports = |set| -> Vec<u8> {
        let elements = nft.elements("seaway-cni", set).unwrap().unwrap();
        let mut ports: Vec<_> = elements.iter().map(|e| e.key[e.key.len() - 3]).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(
        (ports("any4"), ports("at4"), ports("any6")),
        (vec![1, 2, 3], vec![4], vec![])
    );
    for bad in [
        json!({ "hostPort": 7, "containerPort": 0 }),
        json!({ "hostPort": 70_000, "containerPort": 1 }),
        json!({ "hostPort": -1, "containerPort": 1 }),
        json!({ "hostPort": 7, "containerPort": 1, "protocol": "icmp" }),
        json!({ "hostPort": 7, "containerPort": 1, "hostIP": "x" }),
    ] {
        let other = Namespace::new("pod");
        let error = add(&node, "d", &other, json!({ "portMappings": [bad] }))
            .await
            .unwrap_err();
        assert_eq!(error.0, 7, "{}", error.1);
        assert_eq!(node.leases().await.len(), 1);
    }
    // One port of the node to two of the pod; the same one twice is no contradiction, nor is another protocol.
    let other = Namespace::new("pod");
    for (protocol, ip, port, expected) in [
        ("tcp", "", 2, Err(7)),
        ("tcp", "0.0.0.0", 2, Err(7)),
        ("tcp", "192.0.2.9", 2, Ok(())),
        ("udp", "", 2, Ok(())),
        ("tcp", "", 1, Ok(())),
        ("tcp", "::", 1, Ok(())),
    ] {
        let list = json!([
            { "hostPort": 8, "containerPort": 1 },
            { "hostPort": 8, "containerPort": port, "protocol": protocol, "hostIP": ip },
        ]);
        let seen = add(&node, "d", &other, json!({ "portMappings": list })).await;
        let seen = seen.map(drop).map_err(|e| e.0);
        assert_eq!(seen, expected, "{list}");
        node.del("d", &other.path()).await.unwrap();
    }
    // Where there is no address, there is nothing that a port could lead to.
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({});
    config["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 9, "containerPort": 1 }] });
    let error = node.call("ADD", "d", &other.path(), config).await;
    assert_eq!(error.unwrap_err().0, 7);
}

/// podman takes whole ranges of ports.
#[tokio::test]
async fn q01_port_mappings_by_the_thousand() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let pod = Namespace::new("pod");
    let list: Vec<_> = (1..3000)
        .map(|port| json!({ "hostPort": port, "containerPort": port }))
        .collect();
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = json!({ "portMappings": list });
    let mut check = config.clone();
    check["prevResult"] = node
        .call("ADD", "c", &pod.path(), config.clone())
        .await
        .unwrap();
    node.call("CHECK", "c", &pod.path(), check).await.unwrap();
    node.call("DEL", "c", &pod.path(), config).await.unwrap();
    let mut nft = Nftables::in_namespace(&node.space.netns).unwrap();
    for set in ["any4", "any6"] {
        assert_eq!(nft.elements("seaway-cni", set).unwrap().unwrap(), []);
    }
}

#[tokio::test]
async fn q02_bandwidth_of_any_size_and_the_configs_wins() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let mut host = RouteSocket::in_namespace(&node.space.netns).unwrap();
    for (runtime, configured, limit) in [
        // containerd, CRI-O.
        (
            json!({ "IngressRate": 8000, "IngressBurst": 4_294_967_295_u64 }),
            json!({}),
            Some(1000),
        ),
        (
            json!({ "ingressRate": 8000, "ingressBurst": 34_359_738_359_u64 }),
            json!({}),
            Some(1000),
        ),
        (
            json!({ "ingressRate": 8000, "ingressBurst": 8000 }),
            json!({ "ingressRate": 16_000, "ingressBurst": 8000 }),
            Some(2000),
        ),
        (
            json!({ "ingressRate": u64::MAX, "ingressBurst": 8000 }),
            json!({}),
            Some(u64::MAX / 8),
        ),
        (
            json!({ "ingressRate": 0, "ingressBurst": 0 }),
            json!({}),
            None,
        ),
    ] {
        let pod = Namespace::new("pod");
        let mut config = node.config("1.0.0");
        config["runtimeConfig"] = json!({ "bandwidth": runtime });
        config
            .as_object_mut()
            .unwrap()
            .extend(configured.as_object().unwrap().clone());
        let result = node
            .call("ADD", "c", &pod.path(), config.clone())
            .await
            .unwrap();
        let end = host
            .link(result["interfaces"][0]["name"].as_str().unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(host.limit_of(end.index).unwrap(), limit, "{runtime}");
        node.call("DEL", "c", &pod.path(), config).await.unwrap();
    }
    for bad in [
        json!({ "ingressRate": 8000 }),
        json!({ "egressBurst": 8000 }),
        json!({ "egressRate": 8000, "egressBurst": 34_359_738_368_u64 }),
        json!({ "egressRate": -1, "egressBurst": 1 }),
    ] {
        let pod = Namespace::new("pod");
        let error = add(&node, "c", &pod, json!({ "bandwidth": bad }))
            .await
            .unwrap_err();
        assert_eq!(error.0, 7, "{bad}: {}", error.1);
    }
    assert_eq!(node.leases().await.len(), 0);
}

#[tokio::test]
async fn q03_every_address_that_is_asked_for_is_served_or_none_is_kept() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let pod = Namespace::new("pod");
    let wanted = json!({ "ips": ["10.244.1.77/24", "fd00:1::77"] });
    let result = add(&node, "c", &pod, wanted.clone()).await.unwrap();
    assert_eq!(result["ips"][0]["address"], "10.244.1.77/32");
    assert_eq!(result["ips"][1]["address"], "fd00:1::77/128");
    let other = Namespace::new("pod");
    for (ips, code) in [
        (wanted, 102),
        (json!({ "ips": ["fd00:1::78", "10.99.0.1"] }), 7),
        (json!({ "ips": ["10.244.1.80", "10.244.1.81"] }), 7),
        (json!({ "ips": ["x"] }), 7),
    ] {
        let error = add(&node, "d", &other, ips).await.unwrap_err();
        assert_eq!(error.0, code, "{}", error.1);
        assert_eq!(node.leases().await.len(), 2);
    }
}

#[tokio::test]
async fn q04_the_capability_mac_wins() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let of_args = "IgnoreUnknown=1;MAC=02:00:00:00:00:01";
    for (runtime, args, expected) in [
        (json!({}), json!({}), "02:00:00:00:00:01"),
        (
            json!({}),
            json!({ "mac": "02:00:00:00:00:02" }),
            "02:00:00:00:00:02",
        ),
        (
            json!({ "mac": "02:00:00:00:00:03" }),
            json!({ "mac": "02:00:00:00:00:02" }),
            "02:00:00:00:00:03",
        ),
    ] {
        let pod = Namespace::new("pod");
        let mut config = node.config("1.0.0");
        config["runtimeConfig"] = runtime;
        config["args"] = json!({ "cni": args });
        let (path, more) = (pod.path(), [("CNI_ARGS", of_args)]);
        let result = node
            .call_as("seaway-cni", "ADD", ("c", &path), &more, &config)
            .await
            .unwrap();
        assert_eq!(result["interfaces"][1]["mac"], expected);
        let link = pod.netlink().link("eth0").await.unwrap().unwrap();
        assert_eq!(link.mac.unwrap().to_string(), expected);
        let mut check = config.clone();
        check["prevResult"] = result;
        node.call_as("seaway-cni", "CHECK", ("c", &path), &more, &check)
            .await
            .unwrap();
        node.del("c", &path).await.unwrap();
    }
    let pod = Namespace::new("pod");
    for bad in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "x"] {
        assert_eq!(
            add(&node, "c", &pod, json!({ "mac": bad }))
                .await
                .unwrap_err()
                .0,
            7,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn q05_ip_ranges_stand_before_those_of_the_config() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let asked = json!({ "ipRanges": [[{ "subnet": "10.7.0.0/24", "rangeStart": "10.7.0.20", "gateway": "10.7.0.9" }], [{ "subnet": "fd00:7::/64" }]] });
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = asked;
    config["ipam"] = json!({ "type": "host-local", "subnet": "10.8.0.0/24" });
    let result = node
        .call_as("ptp", "ADD", ("c", &pod.path()), &[], &config)
        .await
        .unwrap();
    let ips: Vec<_> = result["ips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ip| ip["address"].as_str().unwrap())
        .collect();
    assert_eq!(ips, ["10.7.0.20/24", "fd00:7::2/64", "10.8.0.2/24"]);
    // In place of the node's.
    let second = Namespace::new("pod");
    config.as_object_mut().unwrap().remove("ipam");
    let result = node
        .call("ADD", "d", &second.path(), config.clone())
        .await
        .unwrap();
    assert_eq!(address(&result).to_string(), "10.7.0.21");
    config["runtimeConfig"]["ipRanges"][1][0]["subnet"] = "10.7.0.0/16".into();
    assert_eq!(
        node.call("ADD", "e", &second.path(), config)
            .await
            .unwrap_err()
            .0,
        7
    );
}

#[tokio::test]
async fn q06_other_capabilities_are_no_obstacle() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for aliases in [json!(["a"]), json!({ "net": ["a", "b"] }), Value::Null] {
        let pod = Namespace::new("pod");
        let runtime = json!({
            "aliases": aliases,
            "cgroupPath": "/kubepods/x",
            "io.kubernetes.cri.pod-annotations": { "a": "b" },
            "dns": { "Servers": ["192.0.2.1"], "searches": null, "options": ["ndots:5"] },
            "portMappings": null,
            "ips": null,
        });
        add(&node, "c", &pod, runtime).await.unwrap();
        node.del("c", "").await.unwrap();
    }
}

#[tokio::test]
async fn q07_args_of_the_config_win_over_their_twins() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["args"] =
        json!({ "cni": { "ips": ["10.244.1.40"], "labels": [{ "key": "a", "value": "b" }] } });
    let (path, more) = (pod.path(), [("CNI_ARGS", "IP=10.244.1.41")]);
    let result = node
        .call_as("seaway-cni", "ADD", ("c", &path), &more, &config)
        .await
        .unwrap();
    assert_eq!(address(&result).to_string(), "10.244.1.40");
}

#[tokio::test]
async fn q08_the_args_of_kubernetes_runtimes_are_known() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let args = "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=d;IP=10.244.1.9;MAC=02:00:00:00:00:09";
    let (path, more) = (pod.path(), [("CNI_ARGS", args)]);
    let result = node
        .call_as(
            "seaway-cni",
            "ADD",
            ("c", &path),
            &more,
            &node.config("1.0.0"),
        )
        .await
        .unwrap();
    assert_eq!(address(&result).to_string(), "10.244.1.9");
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:09");
}

#[tokio::test]
async fn q09_behind_a_plugin_of_another_kind_it_does_its_part() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    // A pair as the reference bridge makes it: random names, an address of a subnet.
    let options = seaway_kernel::VethOptions {
        peer_netns: Some(&node.space.netns),
        up: true,
        ..seaway_kernel::VethOptions::default()
    };
    pod.netlink()
        .add_veth("eth0", "veth1234", options)
        .await
        .unwrap();
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "cni0" }, { "name": "veth1234" }, { "name": "eth0", "sandbox": pod.path() }],
        "ips": [{ "address": "10.88.0.5/16", "gateway": "10.88.0.1", "interface": 2 }],
    });
    let mut config = node.config("1.0.0");
    config["prevResult"] = previous.clone();
    config["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 80, "containerPort": 80 }],
        "bandwidth": { "ingressRate": 8000, "ingressBurst": 8000, "egressRate": 16_000, "egressBurst": 8000 },
    });
    assert_eq!(
        node.call("ADD", "c", &pod.path(), config.clone())
            .await
            .unwrap(),
        previous
    );
    let mut host = RouteSocket::in_namespace(&node.space.netns).unwrap();
    let end = host.link("veth1234").unwrap().unwrap();
    assert_eq!(host.limit_of(end.index).unwrap(), Some(1000));
    node.call("CHECK", "c", &pod.path(), config.clone())
        .await
        .unwrap();
    node.call("DEL", "c", &pod.path(), config).await.unwrap();
    let links: Vec<_> = host
        .links()
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert!(
        links.contains(&"veth1234".to_owned()),
        "another plugin's link stays"
    );
    assert!(
        !links.iter().any(|name| name.starts_with("sb")),
        "{links:?}"
    );
}
