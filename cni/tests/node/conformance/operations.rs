//! Section "Operations".

use std::time::{Duration, Instant};

use seaway_kernel::{MacAddr, RouteSocket, Scope};
use serde_json::{Value, json};

use super::VERSIONS;
use crate::support::{Namespace, Node, address};

const OLD: [&str; 4] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1"];

#[tokio::test]
async fn a01_and_a02_add_makes_the_interface_and_prints_a_result() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    for version in VERSIONS {
        let pod = Namespace::new("pod");
        let result = node
            .call("ADD", "c", &pod.path(), node.config(version))
            .await
            .unwrap();
        assert_eq!(result["cniVersion"], version);
        let link = pod.netlink().link("eth0").await.unwrap().unwrap();
        assert!(link.running);
        assert_eq!(link.mtu, 1450);
        node.call("DEL", "c", &pod.path(), node.config(version))
            .await
            .unwrap();
        assert!(pod.netlink().link("eth0").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a02_the_kernel_has_what_the_result_says() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.1.0");
    config["mtu"] = 1300.into();
    config["ipam"] = json!({ "type": "seaway-cni", "routes": [
        { "dst": "192.0.2.0/24", "mtu": 1200, "priority": 5 },
        { "dst": "198.51.100.0/24", "gw": "10.244.1.77" },
    ]});
    let result = node
        .call("ADD", "c", &pod.path(), config.clone())
        .await
        .unwrap();
    let mut inside = RouteSocket::in_namespace(&pod.netns).unwrap();
    let link = inside.link("eth0").unwrap().unwrap();
    assert_eq!(
        (link.mtu, result["interfaces"][1]["mtu"].as_u64()),
        (1300, Some(1300))
    );
    assert_eq!(
        link.mac.unwrap().to_string(),
        result["interfaces"][1]["mac"]
    );
    let routes = inside
        .routes(seaway_kernel::RouteFilter::default())
        .unwrap();
    for route in result["routes"].as_array().unwrap() {
        let wanted = route["dst"].as_str().unwrap().parse().unwrap();
        let found = routes.iter().find(|r| r.destination == wanted).unwrap();
        let gateway = route["gw"]
            .as_str()
            .unwrap_or("169.254.1.1")
            .parse()
            .unwrap();
        assert_eq!(found.gateway, Some(gateway), "{route}");
        assert_eq!(found.metric.map(u64::from), route["priority"].as_u64());
    }
    assert_eq!(result["routes"].as_array().unwrap().len(), 3);
    config["prevResult"] = result;
    node.call("CHECK", "c", &pod.path(), config).await.unwrap();
}

#[tokio::test]
async fn a03_a_previous_result_is_passed_on_as_it_came() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "br0", "mac": "" }, { "name": "eth0", "sandbox": pod.path(), "extra": 1 }],
        "ips": [{ "address": "10.1.1.1/24", "interface": 1 }],
        "dns": { "nameservers": ["192.0.2.1"] },
        "ofNobody": true,
    });
    let mut config = node.config("1.0.0");
    config["prevResult"] = previous.clone();
    assert_eq!(
        node.call("ADD", "c", &pod.path(), config).await.unwrap(),
        previous
    );
    assert_eq!(node.leases().await.len(), 0);
    assert_eq!(node.pod_links().await, [""; 0]);
}

#[tokio::test]
async fn a04_and_a06_a_second_add_is_refused_and_the_first_stays() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("c", &pod).await.unwrap();
    for id in ["c", "other"] {
        assert_eq!(node.add(id, &pod).await.unwrap_err().0, 102, "{id}");
        node.check("c", &pod, &result).await.unwrap();
        assert_eq!(node.leases().await, [address(&result)]);
    }
    // The same where no address is given out.
    let bare = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({});
    node.call("ADD", "bare", &bare.path(), config.clone())
        .await
        .unwrap();
    assert_eq!(
        node.call("ADD", "bare", &bare.path(), config)
            .await
            .unwrap_err()
            .0,
        102
    );
    assert!(bare.netlink().link("eth0").await.unwrap().is_some());
}

#[tokio::test]
async fn a06_one_container_may_have_two_interfaces() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let path = pod.path();
    let mut config = node.config("1.0.0");
    let first = node.call("ADD", "c", &path, config.clone()).await.unwrap();
    config["ipam"] = json!({ "type": "seaway-cni", "ranges": [[{ "subnet": "10.9.0.0/24" }]],
        "routes": [{ "dst": "0.0.0.0/0", "priority": 9 }] });
    let more = [("CNI_IFNAME", "net1")];
    let second = node
        .call_as("seaway-cni", "ADD", ("c", &path), &more, &config)
        .await
        .unwrap();
    assert_eq!(node.leases().await.len(), 2);
    node.call_as("seaway-cni", "DEL", ("c", &path), &more, &config)
        .await
        .unwrap();
    assert_eq!(node.leases().await, [address(&first)]);
    assert_ne!(address(&first), address(&second));
}

#[tokio::test]
async fn a05_an_add_that_fails_late_leaves_nothing() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    // The second route is refused by the kernel, when address and interface are made: one over a gateway is not of that scope.
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({ "type": "seaway-cni", "routes": [
        { "dst": "198.51.100.0/24" }, { "dst": "192.0.2.0/24", "scope": 253 },
    ]});
    let (code, message) = node
        .call("ADD", "c", &pod.path(), config.clone())
        .await
        .unwrap_err();
    assert_eq!(code, 100, "{message}");
    assert!(message.contains("route 192.0.2.0/24"), "{message}");
    assert_eq!(node.leases().await.len(), 0);
    assert_eq!(node.pod_links().await, [""; 0]);
    assert!(pod.netlink().link("eth0").await.unwrap().is_none());
}

#[tokio::test]
async fn d01_and_d02_and_d03_del_succeeds_whatever_is_there() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    node.del("never", "").await.unwrap();
    for version in VERSIONS {
        let pod = Namespace::new("pod");
        let path = pod.path();
        let mut config = node.config(version);
        config["runtimeConfig"] = json!({
            "portMappings": [{ "hostPort": 8080, "containerPort": 80 }],
            "bandwidth": { "egressRate": 8000, "egressBurst": 80_000 },
        });
        node.call("ADD", "c", &path, config.clone()).await.unwrap();
        drop(pod);
        // As containerd: twice, and after that once more with what is left of the path.
        for netns in ["", "", &path] {
            node.call("DEL", "c", netns, node.config(version))
                .await
                .unwrap();
            assert_eq!(node.leases().await.len(), 0, "{version}");
            assert_eq!(node.pod_links().await, [""; 0], "{version}");
        }
        let links = node.space.netlink().links().await.unwrap();
        assert!(!links.iter().any(|link| link.name.starts_with("sb")));
    }
}

#[tokio::test]
async fn d03_del_after_a_failed_add_needs_no_previous_result() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] =
        json!({ "portMappings": [{ "hostPort": 70_000, "containerPort": 80 }] });
    assert_eq!(
        node.call("ADD", "c", &pod.path(), config.clone())
            .await
            .unwrap_err()
            .0,
        7
    );
    // What ADD is refused for does not hold DEL up.
    config["dns"] = 3.into();
    config["mtu"] = "x".into();
    node.call("DEL", "c", &pod.path(), config).await.unwrap();
}

#[tokio::test]
async fn d04_the_address_is_freed_without_the_namespace_and_failures_are_told() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    node.add("c", &pod).await.unwrap();
    drop(pod);
    node.del("c", "").await.unwrap();
    assert_eq!(node.leases().await.len(), 0);
    node.script("failing", "echo '{\"code\":11,\"msg\":\"later\"}'; exit 1");
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({ "type": "failing" });
    let error = node
        .call_as("seaway-cni", "DEL", ("c", ""), &[], &config)
        .await
        .unwrap_err();
    assert_eq!(error, (11, "later".to_owned()));
}

#[tokio::test]
async fn k02_check_needs_a_previous_result() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    node.add("c", &pod).await.unwrap();
    let error = node
        .call("CHECK", "c", &pod.path(), node.config("1.0.0"))
        .await
        .unwrap_err();
    assert_eq!(error.0, 7);
}

#[tokio::test]
async fn k03_check_tolerates_what_others_added() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut result = node.add("c", &pod).await.unwrap();
    let inside = pod.netlink();
    let index = inside.link("eth0").await.unwrap().unwrap().index;
    inside
        .add_address(index, "10.3.3.3/24".parse().unwrap(), Scope::Global)
        .await
        .unwrap();
    // As the reference tuning plugin does it; the neighbour on the node is ours and follows.
    result["interfaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "more0" }));
    result["ips"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "address": "10.3.3.3/24", "interface": 1 }));
    result["routes"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "dst": "10.4.0.0/16" }));
    node.check("c", &pod, &result).await.unwrap();
}

#[tokio::test]
async fn k04_check_sees_what_is_missing_or_wrong() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for damage in [
        "mtu",
        "address",
        "routes",
        "neighbour",
        "host route",
        "link",
        "down",
    ] {
        let pod = Namespace::new("pod");
        let mut config = node.config("1.1.0");
        let result = node
            .call("ADD", "c", &pod.path(), config.clone())
            .await
            .unwrap();
        config["prevResult"] = result.clone();
        node.call("CHECK", "c", &pod.path(), config.clone())
            .await
            .unwrap();
        let (inside, outside) = (pod.netlink(), node.space.netlink());
        let eth0 = inside.link("eth0").await.unwrap().unwrap().index;
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        let host = outside.link(host).await.unwrap().unwrap().index;
        match damage {
            "mtu" => inside.set_mtu(eth0, 1200).await.unwrap(),
            "address" => {
                for one in inside.addresses(Some(eth0)).await.unwrap() {
                    inside.delete_address(&one).await.unwrap();
                }
            }
            "routes" => {
                let all = inside
                    .routes(seaway_kernel::RouteFilter::default())
                    .await
                    .unwrap();
                let default = all.iter().find(|r| r.destination.prefix() == 0).unwrap();
                inside.delete_route(default).await.unwrap();
            }
            "neighbour" => {
                let mac = MacAddr([2, 9, 9, 9, 9, 9]);
                outside
                    .replace_neighbour(host, address(&result), mac)
                    .await
                    .unwrap();
            }
            "host route" => {
                let filter = seaway_kernel::RouteFilter {
                    link: Some(host),
                    protocol: Some(83),
                    table: None,
                };
                for route in outside.routes(filter).await.unwrap() {
                    outside.delete_route(&route).await.unwrap();
                }
            }
            "link" => inside.delete_link(eth0).await.unwrap(),
            _ => outside.set_down(host).await.unwrap(),
        }
        let error = node
            .call("CHECK", "c", &pod.path(), config)
            .await
            .unwrap_err();
        assert_eq!(error.0, 104, "{damage}: {}", error.1);
        node.del("c", &pod.path()).await.unwrap();
    }
}

#[tokio::test]
async fn k05_check_sees_untracked_things_that_are_gone() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("c", &pod).await.unwrap();
    // The reservation.
    std::fs::remove_file(node.entry("10.244.1.1")).unwrap();
    let error = node.check("c", &pod, &result).await.unwrap_err();
    assert_eq!(
        error,
        (104, "no address is reserved for container c".to_owned())
    );
    // Limits and host ports that are asked for now, and are not there.
    let other = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["prevResult"] = node.add("d", &other).await.unwrap();
    config["runtimeConfig"] =
        json!({ "bandwidth": { "ingressRate": 8000, "ingressBurst": 80_000 } });
    assert_eq!(
        node.call("CHECK", "d", &other.path(), config.clone())
            .await
            .unwrap_err()
            .0,
        104
    );
    config["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80 }] });
    assert_eq!(
        node.call("CHECK", "d", &other.path(), config)
            .await
            .unwrap_err()
            .0,
        104
    );
}

#[tokio::test]
async fn k06_check_fails_when_the_overlay_is_down() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("c", &pod).await.unwrap();
    let netlink = node.space.netlink();
    let index = netlink.link("seaway.vxlan").await.unwrap().unwrap().index;
    netlink.set_down(index).await.unwrap();
    let error = node.check("c", &pod, &result).await.unwrap_err();
    assert_eq!(
        error,
        (104, "link seaway.vxlan on the node is down".to_owned())
    );
}

#[tokio::test]
async fn k07_check_right_after_add_succeeds() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    for round in 0..8 {
        let pod = Namespace::new("pod");
        let result = node.add("c", &pod).await.unwrap();
        node.check("c", &pod, &result)
            .await
            .unwrap_or_else(|e| panic!("{round}: {e:?}"));
        node.del("c", &pod.path()).await.unwrap();
    }
}

#[tokio::test]
async fn k08_check_asks_the_ipam_plugin() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["prevResult"] = node.add("c", &pod).await.unwrap();
    config["ipam"] = json!({ "type": "failing" });
    node.script("failing", "echo '{\"code\":123,\"msg\":\"lost\"}'; exit 1");
    let path = pod.path();
    let error = node
        .call_as("seaway-cni", "CHECK", ("c", &path), &[], &config)
        .await
        .unwrap_err();
    assert_eq!(error, (123, "lost".to_owned()));
}

#[tokio::test]
async fn k09_check_is_not_known_before_0_4_0_and_prints_nothing() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("c", &pod).await.unwrap();
    for version in VERSIONS {
        let mut config = node.config(version);
        config["prevResult"] = result.clone();
        let answer = node.call("CHECK", "c", &pod.path(), config).await;
        if OLD.contains(&version) {
            assert_eq!(answer.unwrap_err().0, 1, "{version}");
        } else {
            assert_eq!(answer.unwrap(), Value::Null, "{version}");
        }
    }
}

#[tokio::test]
async fn s01_s02_s03_status_says_whether_add_can_be_served() {
    let node = Node::new(&["10.244.1.0/30"]).await;
    let status = async || {
        node.call("STATUS", "", "", node.config("1.1.0"))
            .await
            .map_err(|e| e.0)
    };
    assert_eq!(status().await, Ok(Value::Null));
    let pods: Vec<_> = (0..2).map(|_| Namespace::new("pod")).collect();
    for (id, pod) in ["a", "b"].iter().zip(&pods) {
        node.add(id, pod).await.unwrap();
    }
    assert_eq!(status().await, Err(50), "no address is left");
    node.del("a", "").await.unwrap();
    assert_eq!(status().await, Ok(Value::Null));
    let netlink = node.space.netlink();
    let index = netlink.link("seaway.vxlan").await.unwrap().unwrap().index;
    netlink.set_down(index).await.unwrap();
    assert_eq!(status().await, Err(51), "pods that are there are cut off");
    std::fs::remove_file(node.run_dir().join("node.json")).unwrap();
    assert_eq!(status().await, Err(50), "the overlay has not begun");
}

#[tokio::test]
async fn s04_other_verbs_are_served_while_status_fails() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let netlink = node.space.netlink();
    let index = netlink.link("seaway.vxlan").await.unwrap().unwrap().index;
    netlink.set_down(index).await.unwrap();
    node.call("STATUS", "", "", node.config("1.1.0"))
        .await
        .unwrap_err();
    let pod = Namespace::new("pod");
    node.add("c", &pod).await.unwrap();
    node.del("c", &pod.path()).await.unwrap();
}

#[tokio::test]
async fn s05_status_of_the_ipam_plugin_is_ours() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let mut config = node.config("1.1.0");
    config["ipam"] = json!({ "type": "other" });
    node.script("other", "test $CNI_COMMAND = STATUS");
    node.call_as("seaway-cni", "STATUS", ("", ""), &[], &config)
        .await
        .unwrap();
    node.script(
        "other",
        "echo '{\"code\":50,\"msg\":\"none left\"}'; exit 1",
    );
    let error = node
        .call_as("seaway-cni", "STATUS", ("", ""), &[], &config)
        .await
        .unwrap_err();
    assert_eq!(error, (50, "none left".to_owned()));
}

#[tokio::test]
async fn s06_status_is_new_in_1_1_0_and_quick_and_changes_nothing() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for version in VERSIONS {
        let answer = node.call("STATUS", "", "", node.config(version)).await;
        assert_eq!(answer.is_ok(), version == "1.1.0", "{version}");
        assert!(answer.is_ok() || answer.unwrap_err().0 == 1);
    }
    let begin = Instant::now();
    for _ in 0..10 {
        node.call("STATUS", "", "", node.config("1.1.0"))
            .await
            .unwrap();
    }
    // It waits for nothing: what it may take is measured by the bench.
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(!node.state_dir().exists(), "it only reads");
}

#[tokio::test]
async fn v01_and_v02_version_is_answered_to_any_input() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let dummies = [
        ("CNI_COMMAND", "VERSION"),
        ("CNI_NETNS", "dummy"),
        ("CNI_IFNAME", "dummy"),
        ("CNI_PATH", "dummy"),
    ];
    for name in ["seaway-cni", "ptp", "host-local"] {
        for input in ["{\"cniVersion\":\"1.0.0\"}", "", "nonsense"] {
            let answer = node.run(name, &dummies, input).await.unwrap();
            assert_eq!(answer["supportedVersions"], json!(VERSIONS));
        }
    }
    let answer = node
        .run("seaway-cni", &dummies, "{\"cniVersion\":\"0.4.0\"}")
        .await
        .unwrap();
    assert_eq!(answer["cniVersion"], "0.4.0");
}
