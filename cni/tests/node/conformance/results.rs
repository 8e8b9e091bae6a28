//! Section "Results and errors".

use serde_json::{Value, json};

use super::VERSIONS;
use crate::support::{Namespace, Node};

async fn result(version: &str) -> (Value, String) {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config(version);
    config["ipam"] =
        json!({ "type": "seaway-cni", "routes": [{ "dst": "192.0.2.0/24", "mtu": 1200 }] });
    let result = node.call("ADD", "c", &pod.path(), config).await.unwrap();
    (result, pod.path())
}

#[tokio::test]
async fn r01_and_r02_up_to_0_2_0_there_is_one_address_a_family() {
    for version in ["0.1.0", "0.2.0"] {
        let (result, _) = result(version).await;
        assert_eq!(
            result,
            json!({
                "cniVersion": version,
                "ip4": { "ip": "10.244.1.1/32", "gateway": "169.254.1.1", "routes": [
                    { "dst": "0.0.0.0/0", "gw": "169.254.1.1" }, { "dst": "192.0.2.0/24" },
                ]},
                "ip6": { "ip": "fd00:1::1/128", "gateway": "fe80::1", "routes": [
                    { "dst": "::/0", "gw": "fe80::1" },
                ]},
                "dns": {},
            })
        );
    }
}

#[tokio::test]
async fn r02_two_addresses_of_one_family_are_refused_and_freed() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let mut config = node.config("0.2.0");
    config["ipam"] = json!({ "type": "host-local", "ranges": [[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "10.2.0.0/24" }]] });
    for name in ["seaway-cni", "ptp", "host-local"] {
        let pod = Namespace::new("pod");
        let error = node
            .call_as(name, "ADD", ("c", &pod.path()), &[], &config)
            .await
            .unwrap_err();
        assert_eq!(error.0, 7, "{}", error.1);
        assert_eq!(node.leases().await.len(), 0);
        assert_eq!(node.pod_links().await, [""; 0]);
    }
}

#[tokio::test]
async fn r03_and_r04_the_family_stands_in_ips_up_to_0_4_0() {
    for version in &VERSIONS[2..] {
        let (result, _) = result(version).await;
        let families: Vec<_> = result["ips"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ip| ip.get("version"))
            .collect();
        if *version <= "0.4.0" {
            assert_eq!(
                families,
                [Some(&json!("4")), Some(&json!("6"))],
                "{version}"
            );
        } else {
            assert_eq!(families, [None, None], "{version}");
        }
    }
}

#[tokio::test]
async fn r05_what_is_new_in_1_1_0_appears_there_alone() {
    for version in &VERSIONS[2..] {
        let (result, _) = result(version).await;
        let new = *version == "1.1.0";
        for interface in result["interfaces"].as_array().unwrap() {
            assert_eq!(interface.get("mtu").is_some(), new, "{version}");
        }
        assert_eq!(result["routes"][2].get("mtu").is_some(), new, "{version}");
    }
}

#[tokio::test]
async fn r06_and_r07_interfaces_of_both_sides_and_addresses_of_the_pod() {
    for version in &VERSIONS[2..] {
        let (result, path) = result(version).await;
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces[0].get("sandbox"), None);
        assert_eq!(interfaces[1]["sandbox"], path);
        assert_eq!(interfaces[1]["name"], "eth0");
        for ip in result["ips"].as_array().unwrap() {
            assert_eq!(ip["interface"], 1);
            assert!(ip["address"].as_str().unwrap().contains('/'));
        }
    }
}

#[tokio::test]
async fn r08_an_unchanged_previous_result_stays_equal() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    for version in &VERSIONS[2..] {
        let (mut previous, _) = result(version).await;
        previous["interfaces"][1]["ofALaterVersion"] = 3.into();
        let mut config = node.config(version);
        config["prevResult"] = previous.clone();
        assert_eq!(
            node.call("ADD", "c", &pod.path(), config).await.unwrap(),
            previous
        );
    }
}

#[tokio::test]
async fn r09_a_route_without_a_gateway_leads_to_that_of_its_family() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({ "type": "seaway-cni", "routes": [{ "dst": "192.0.2.0/24" }, { "dst": "2001:db8::/32" }] });
    node.call("ADD", "c", &pod.path(), config).await.unwrap();
    let routes = pod
        .netlink()
        .routes(seaway_kernel::RouteFilter::default())
        .await
        .unwrap();
    for (to, gateway) in [
        ("192.0.2.0/24", "169.254.1.1"),
        ("2001:db8::/32", "fe80::1"),
    ] {
        let route = routes
            .iter()
            .find(|r| r.destination == to.parse().unwrap())
            .unwrap();
        assert_eq!(route.gateway, Some(gateway.parse().unwrap()));
    }
}

#[tokio::test]
async fn r10_and_r11_an_error_says_version_code_and_message() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let program = seaway_kernel::Command::new(env!("CARGO_BIN_EXE_seaway-cni"));
    let output = program
        .env_clear()
        .env("CNI_COMMAND", "STATUS")
        .stdin(node.config("1.0.0").to_string())
        .output()
        .await;
    let Err(seaway_kernel::CommandError::Failed { stdout, .. }) = output else {
        panic!("{output:?}");
    };
    let error: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(
        error,
        json!({ "cniVersion": "1.0.0", "code": 1, "msg": "config version 1.0.0 has no STATUS; it needs 1.1.0" })
    );
}

#[tokio::test]
async fn r12_what_passes_by_itself_is_told_as_try_again() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    std::fs::remove_file(node.run_dir().join("node.json")).unwrap();
    let pod = Namespace::new("pod");
    assert_eq!(node.add("c", &pod).await.unwrap_err().0, 11);
}
