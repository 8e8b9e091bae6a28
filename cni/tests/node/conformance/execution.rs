//! Section "Execution protocol".

use futures::future::join_all;
use serde_json::{Value, json};

use super::VERSIONS;
use crate::support::{Namespace, Node, address, environment};

/// The same variables without one.
fn without<'a>(env: &[(&'a str, &'a str)], name: &str) -> Vec<(&'a str, &'a str)> {
    env.iter()
        .copied()
        .filter(|(key, _)| *key != name)
        .collect()
}

#[tokio::test]
async fn e01_and_e02_an_error_is_an_object_on_standard_output() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    // `run` reads the object from standard output, and fails the test if there is none.
    let (code, message) = node
        .run("seaway-cni", &environment("ADD", "c", "/nowhere"), "{")
        .await
        .unwrap_err();
    assert_eq!(code, 6);
    assert!(message.contains("not a JSON object"), "{message}");
}

#[tokio::test]
async fn e02_success_prints_a_result_or_nothing() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("c", &pod).await.unwrap();
    assert!(result.is_object());
    assert_eq!(node.check("c", &pod, &result).await.unwrap(), Value::Null);
    assert_eq!(node.del("c", &pod.path()).await.unwrap(), Value::Null);
    assert_eq!(
        node.call("STATUS", "", "", node.config("1.1.0"))
            .await
            .unwrap(),
        Value::Null
    );
}

#[tokio::test]
async fn e03_every_missing_variable_is_named() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let config = node.config("1.1.0").to_string();
    let only = |verb| [("CNI_COMMAND", verb)];
    for (verb, names) in [
        ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"][..]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", &["CNI_PATH"]),
    ] {
        let (code, message) = node
            .run("seaway-cni", &only(verb), &config)
            .await
            .unwrap_err();
        assert_eq!(code, 4);
        for name in names {
            assert!(message.contains(name), "{verb}: {message}");
        }
        assert_eq!(message.matches("CNI_").count(), names.len(), "{message}");
    }
    for verb in ["STATUS", "VERSION"] {
        node.run("seaway-cni", &only(verb), &config).await.unwrap();
    }
    // DEL needs no namespace.
    let env = without(&environment("DEL", "c", ""), "CNI_NETNS");
    node.run("seaway-cni", &env, &config).await.unwrap();
}

#[tokio::test]
async fn e04_an_unknown_command_is_refused() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for verb in ["add", "UPDATE", ""] {
        let error = node
            .call(verb, "c", "", node.config("1.1.0"))
            .await
            .unwrap_err();
        assert_eq!(error.0, 4, "{verb}");
    }
}

#[tokio::test]
async fn e05_a_bad_container_id_is_refused() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for id in ["../a", "-a", "a b", "a/b", ".a", "_a"] {
        for verb in ["ADD", "CHECK", "DEL"] {
            let error = node
                .call(verb, id, "/x", node.config("1.0.0"))
                .await
                .unwrap_err();
            assert_eq!(error.0, 4, "{verb} {id}");
        }
    }
    let long = "a".repeat(300);
    node.call("DEL", &long, "", node.config("1.0.0"))
        .await
        .unwrap();
}

#[tokio::test]
async fn e06_a_bad_interface_name_is_refused() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for name in [".", "..", "a/b", "a:b", "a b", "sixteen-is-a-lot", "a\tb"] {
        let mut env = environment("DEL", "c", "");
        env[3].1 = name;
        let config = node.config("1.0.0").to_string();
        assert_eq!(
            node.run("seaway-cni", &env, &config).await.unwrap_err().0,
            4,
            "{name}"
        );
    }
}

#[tokio::test]
async fn e07_a_name_that_is_taken_is_refused_and_nothing_is_made() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut env = environment("ADD", "c", "").map(|(k, v)| (k.to_owned(), v.to_owned()));
    env[2].1 = pod.path();
    env[3].1 = "lo".to_owned();
    let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let config = node.config("1.0.0").to_string();
    assert_eq!(
        node.run("seaway-cni", &env, &config).await.unwrap_err().0,
        102
    );
    assert_eq!(node.leases().await.len(), 0);
    assert_eq!(node.pod_links().await, [""; 0]);
}

#[tokio::test]
async fn e09_without_a_command_it_says_what_it_is() {
    let output = seaway_kernel::Command::new(env!("CARGO_BIN_EXE_seaway-cni"))
        .env_clear()
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("CNI plugin of Seaway, protocol versions 0.1.0"),
        "{text}"
    );
    assert_eq!(output.stdout, b"");
}

#[tokio::test]
async fn e10_input_is_refused_with_the_code_that_fits() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let env = environment("ADD", "c", "/x");
    for (input, code) in [
        ("", 6),
        ("[]", 6),
        ("{\"cniVersion\":7}", 6),
        ("{\"cniVersion\":\"9.0.0\",\"name\":\"n\"}", 1),
        ("{\"cniVersion\":\"1.0\",\"name\":\"n\"}", 1),
        ("{\"cniVersion\":\"1.0.0\"}", 7),
    ] {
        let error = node.run("seaway-cni", &env, input).await.unwrap_err();
        assert_eq!(error.0, code, "{input}: {}", error.1);
    }
}

#[tokio::test]
async fn e11_the_plugins_own_namespace_is_refused_unless_it_is_meant() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let own = node.space.path();
    let config = node.config("1.0.0");
    for verb in ["ADD", "DEL"] {
        let error = node
            .call(verb, "c", &own, config.clone())
            .await
            .unwrap_err();
        assert_eq!(error.0, 8, "{verb}");
    }
    for value in ["1", "true", "TRUE"] {
        let more = [("CNI_NETNS_OVERRIDE", value)];
        node.call_as("seaway-cni", "ADD", ("c", &own), &more, &config)
            .await
            .unwrap();
        node.call_as("seaway-cni", "DEL", ("c", &own), &more, &config)
            .await
            .unwrap();
    }
    node.del("c", "/run/netns/not-there").await.unwrap();
}

#[tokio::test]
async fn e12_and_e13_calls_at_once_do_not_disturb_each_other() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pods: Vec<_> = (0..12).map(|_| Namespace::new("pod")).collect();
    let ids: Vec<_> = (0..12).map(|n| format!("c{n}")).collect();
    let mut gc = node.config("1.1.0");
    gc["cni.dev/valid-attachments"] = ids
        .iter()
        .map(|id| json!({ "containerID": id, "ifname": "eth0" }))
        .collect();
    let adds = join_all(pods.iter().zip(&ids).map(|(pod, id)| node.add(id, pod)));
    let gcs = join_all((0..4).map(|_| node.call("GC", "", "", gc.clone())));
    let (added, collected) = tokio::join!(adds, gcs);
    let mut addresses: Vec<_> = added
        .into_iter()
        .map(|result| address(&result.unwrap()))
        .collect();
    collected
        .into_iter()
        .for_each(|answer| drop(answer.unwrap()));
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 12);
    assert_eq!(node.leases().await, addresses);
}

#[tokio::test]
async fn e13_two_dels_at_once_both_succeed() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80 }] });
    node.call("ADD", "c", &pod.path(), config.clone())
        .await
        .unwrap();
    let path = pod.path();
    let dels = (0..4).map(|_| node.call("DEL", "c", &path, config.clone()));
    for answer in join_all(dels).await {
        answer.unwrap();
    }
    assert_eq!(node.leases().await.len(), 0);
}

#[tokio::test]
async fn e14_keys_of_runtimes_are_read_in_any_case() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for (ranges, subnet, ips) in [("ipRanges", "subnet", "ips"), ("IPRanges", "Subnet", "IPs")] {
        let pod = Namespace::new("pod");
        let mut config = node.config("1.0.0");
        config["runtimeConfig"] =
            json!({ ranges: [[{ subnet: "10.7.7.0/24" }]], ips: ["10.7.7.9"] });
        let result = node
            .call("ADD", "c", &pod.path(), config.clone())
            .await
            .unwrap();
        assert_eq!(address(&result).to_string(), "10.7.7.9");
        node.call("DEL", "c", &pod.path(), config).await.unwrap();
    }
}

#[tokio::test]
async fn e14_keys_of_the_config_are_read_in_any_case() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let config = json!({
        "CNIVersion": "1.0.0",
        "Name": "seaway",
        "type": "ptp",
        "statedir": node.state_dir(),
        "MTU": 1400,
        "ipmasq": true,
        "IPAM": { "Type": "host-local", "Subnet": "10.7.8.0/24" },
        "DNS": { "nameservers": ["192.0.2.1"] },
    });
    let result = node
        .call_as("ptp", "ADD", ("c", &pod.path()), &[], &config)
        .await
        .unwrap();
    assert_eq!(result["ips"][0]["address"], "10.7.8.2/24");
    assert_eq!(result["dns"]["nameservers"][0], "192.0.2.1");
    let link = pod.netlink().link("eth0").await.unwrap().unwrap();
    assert_eq!(link.mtu, 1400);
    let mut nft = seaway_kernel::Nftables::in_namespace(&node.space.netns).unwrap();
    let masqueraded = nft.elements("seaway-cni", "masquerade4").unwrap().unwrap();
    assert_eq!(masqueraded.len(), 1);
}

/// As Go reads it: containerd sends ranges with empty texts.
#[tokio::test]
async fn e14_what_is_empty_or_null_was_not_given() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let empty = [("CNI_ARGS", "IgnoreUnknown=1;IP=;MAC=")];
    let ranges =
        json!([[{ "Subnet": "10.7.7.0/24", "RangeStart": "", "RangeEnd": "", "Gateway": "" }]]);
    let subnet = json!({
        "type": "host-local", "subnet": "10.7.7.0/24", "rangeStart": "", "rangeEnd": null, "gateway": "",
        "routes": [{ "dst": "10.9.0.0/16", "gw": "" }],
    });
    for (key, value) in [
        ("runtimeConfig", json!({ "ipRanges": ranges })),
        ("runtimeConfig", json!({ "mac": "", "dns": null })),
        (
            "runtimeConfig",
            json!({ "bandwidth": { "ingressRate": null } }),
        ),
        (
            "runtimeConfig",
            json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80, "protocol": null, "hostIP": null }] }),
        ),
        ("args", json!({ "cni": { "ips": null, "mac": "" } })),
        ("ipam", subnet),
    ] {
        let pod = Namespace::new("pod");
        let (path, mut config) = (pod.path(), node.config("1.0.0"));
        config[key] = value;
        node.call_as("seaway-cni", "ADD", ("c", &path), &empty, &config)
            .await
            .unwrap_or_else(|e| panic!("{config}: {e:?}"));
        node.call("DEL", "c", &path, config).await.unwrap();
    }
}

#[tokio::test]
async fn e15_args_are_read_or_refused() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let config = node.config("1.0.0");
    for (args, expected) in [
        ("IgnoreUnknown=1;FOO=a=b;IP=10.244.1.50", Ok("10.244.1.50")),
        (
            "K8S_POD_NAME=w;K8S_POD_NAMESPACE=a,b;IP=10.244.1.51",
            Ok("10.244.1.51"),
        ),
        ("FOO=1", Err(4)),
        ("IgnoreUnknown=1;FOO", Err(4)),
        ("IP=x", Err(4)),
        ("MAC=x", Err(4)),
    ] {
        let pod = Namespace::new("pod");
        let (path, more) = (pod.path(), [("CNI_ARGS", args)]);
        let answer = node
            .call_as("seaway-cni", "ADD", ("c", &path), &more, &config)
            .await;
        let seen = answer
            .map(|result| address(&result).to_string())
            .map_err(|e| e.0);
        assert_eq!(seen, expected.map(str::to_owned), "{args}");
        node.del("c", &path).await.unwrap();
    }
    assert_eq!(VERSIONS.len(), 7);
}
