//! Section "Delegation": another plugin's addresses, and ours for other plugins.

use serde_json::{Value, json};

use super::VERSIONS;
use crate::support::{Namespace, Node, address};

/// An IPAM plugin that writes down its calls, and what it was given.
fn other(node: &Node, answer: &str) {
    let log = node.bin_dir().join("log");
    let text = format!(
        "input=$(cat); echo $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS >> {0}; echo \"$input\" > {0}.in\n\
         echo a warning >&2\n[ $CNI_COMMAND != ADD ] || echo '{answer}'",
        log.display()
    );
    node.script("other", &text);
}

fn log(node: &Node) -> String {
    std::fs::read_to_string(node.bin_dir().join("log")).unwrap_or_default()
}

fn delegated(node: &Node, version: &str) -> Value {
    let mut config = node.config(version);
    config["ipam"] = json!({ "type": "other", "ofIts": "own" });
    config
}

#[tokio::test]
async fn i01_the_delegate_gets_the_same_environment_and_the_whole_config() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    other(
        &node,
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.5.0.7/24","gateway":"10.5.0.1"}]}"#,
    );
    let pod = Namespace::new("pod");
    let (path, more) = (pod.path(), [("CNI_ARGS", "IgnoreUnknown=1;A=b")]);
    let config = delegated(&node, "1.0.0");
    let first = "/nowhere".to_owned() + ":" + node.bin_dir().to_str().unwrap();
    let more = [more[0], ("CNI_PATH", first.as_str())];
    node.call_as("seaway-cni", "ADD", ("c", &path), &more, &config)
        .await
        .unwrap();
    assert_eq!(log(&node), "ADD c eth0 IgnoreUnknown=1;A=b\n");
    let input = std::fs::read(node.bin_dir().join("log.in")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&input).unwrap(), config);
    // One that is nowhere is named.
    let missing = [("CNI_PATH", "/nowhere")];
    let error = node
        .call_as("seaway-cni", "ADD", ("d", &path), &missing, &config)
        .await
        .unwrap_err();
    assert_eq!(error.0, 7);
    assert!(error.1.contains("IPAM plugin other"), "{}", error.1);
}

#[tokio::test]
async fn i02_its_addresses_routes_and_dns_are_taken_over() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    other(
        &node,
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.5.0.7/24","gateway":"10.5.0.1"}],"routes":[{"dst":"192.0.2.0/24"}],"dns":{"domain":"d"}}"#,
    );
    let pod = Namespace::new("pod");
    let path = pod.path();
    let mut config = delegated(&node, "1.0.0");
    let result = node
        .call_as("seaway-cni", "ADD", ("c", &path), &[], &config)
        .await
        .unwrap();
    assert_eq!(
        result["ips"],
        json!([{ "address": "10.5.0.7/32", "gateway": "169.254.1.1", "interface": 1 }])
    );
    assert_eq!(result["dns"], json!({ "domain": "d" }));
    assert_eq!(result["routes"][1], json!({ "dst": "192.0.2.0/24" }));
    config["prevResult"] = result;
    node.call_as("seaway-cni", "CHECK", ("c", &path), &[], &config)
        .await
        .unwrap();
    // The reference plugin in whose place we stand reports the subnet's prefix.
    let second = Namespace::new("pod");
    let config = delegated(&node, "1.0.0");
    let result = node
        .call_as("ptp", "ADD", ("d", &second.path()), &[], &config)
        .await
        .unwrap();
    assert_eq!(
        result["ips"],
        json!([{ "address": "10.5.0.7/24", "gateway": "10.5.0.1", "interface": 1 }])
    );
}

#[tokio::test]
async fn i03_every_verb_reaches_it_and_a_failed_add_is_followed_by_its_del() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    other(&node, r#"{"cniVersion":"1.0.0","ips":[]}"#);
    let pod = Namespace::new("pod");
    let path = pod.path();
    let config = delegated(&node, "1.1.0");
    let error = node
        .call_as("seaway-cni", "ADD", ("c", &path), &[], &config)
        .await
        .unwrap_err();
    assert_eq!(error.0, 105);
    node.call_as("seaway-cni", "DEL", ("c", &path), &[], &config)
        .await
        .unwrap();
    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([]);
    node.call_as("seaway-cni", "GC", ("", ""), &[], &gc)
        .await
        .unwrap();
    node.call_as("seaway-cni", "STATUS", ("", ""), &[], &config)
        .await
        .unwrap();
    let verbs: Vec<_> = log(&node)
        .lines()
        .map(|l| l.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(verbs, ["ADD", "DEL", "DEL", "GC", "STATUS"]);
    assert_eq!(node.pod_links().await, [""; 0]);
}

/// Its ADD would succeed, and its DEL then take the address away that the pod has.
#[tokio::test]
async fn i03_a_second_add_does_not_reach_it() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    other(
        &node,
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.5.0.7/24"}]}"#,
    );
    let pod = Namespace::new("pod");
    let (path, config) = (pod.path(), delegated(&node, "1.0.0"));
    let add = || node.call_as("seaway-cni", "ADD", ("c", &path), &[], &config);
    add().await.unwrap();
    assert_eq!(add().await.unwrap_err().0, 102);
    let verbs: Vec<_> = log(&node)
        .lines()
        .map(|l| l.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(verbs, ["ADD"]);
}

fn host_local(node: &Node, version: &str) -> Value {
    let mut config = node.config(version);
    config["type"] = "bridge".into();
    config["ipam"] = json!({
        "type": "host-local",
        "ranges": [[{ "subnet": "10.22.0.0/29" }], [{ "subnet": "fd00:22::/64", "rangeStart": "fd00:22::10" }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    config
}

#[tokio::test]
async fn i04_and_i02_as_host_local_it_gives_out_addresses_alone() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let path = pod.path();
    node.call_as(
        "host-local",
        "DEL",
        ("unknown", ""),
        &[],
        &host_local(&node, "1.0.0"),
    )
    .await
    .unwrap();
    for (index, version) in VERSIONS.iter().enumerate().skip(3) {
        let config = host_local(&node, version);
        let result = node
            .call_as("host-local", "ADD", ("c", &path), &[], &config)
            .await
            .unwrap();
        let (v4, v6) = (
            format!("10.22.0.{}/29", index - 1),
            format!("fd00:22::{:x}/64", 0x10 + index - 3),
        );
        let mut expected = json!([
            { "address": v4, "gateway": "10.22.0.1" }, { "address": v6, "gateway": "fd00:22::1" },
        ]);
        if *version < "1.0.0" {
            expected[0]["version"] = "4".into();
            expected[1]["version"] = "6".into();
        }
        assert_eq!(result["ips"], expected, "{version}");
        assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0" }]));
        assert_eq!(result.get("interfaces"), None);
        if *version >= "0.4.0" {
            node.call_as("host-local", "CHECK", ("c", &path), &[], &config)
                .await
                .unwrap();
        }
        let again = node
            .call_as("host-local", "ADD", ("c", &path), &[], &config)
            .await
            .unwrap_err();
        assert_eq!(again.0, 102);
        node.call_as("host-local", "DEL", ("c", ""), &[], &config)
            .await
            .unwrap();
        assert_eq!(node.leases().await.len(), 0);
    }
    let config = host_local(&node, "1.1.0");
    assert_eq!(
        node.call_as("host-local", "CHECK", ("c", &path), &[], &config)
            .await
            .unwrap_err()
            .0,
        104
    );
}

#[tokio::test]
async fn i03_as_host_local_gc_and_status_work() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let path = pod.path();
    let mut config = host_local(&node, "1.1.0");
    config["ipam"]["ranges"] = json!([[{ "subnet": "10.22.0.0/30" }]]);
    node.call_as("host-local", "STATUS", ("", ""), &[], &config)
        .await
        .unwrap();
    node.call_as("host-local", "ADD", ("c", &path), &[], &config)
        .await
        .unwrap();
    let error = node
        .call_as("host-local", "STATUS", ("", ""), &[], &config)
        .await
        .unwrap_err();
    assert_eq!(error, (50, "no address is left in 10.22.0.0/30".to_owned()));
    let error = node
        .call_as("host-local", "ADD", ("d", &path), &[], &config)
        .await
        .unwrap_err();
    assert_eq!(
        error,
        (
            101,
            "no address is left in 10.22.0.0/30: all 1 are in use".to_owned()
        )
    );
    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": "c", "ifname": "eth0" }]);
    node.call_as("host-local", "GC", ("", ""), &[], &gc)
        .await
        .unwrap();
    assert_eq!(node.leases().await.len(), 1);
    gc["cni.dev/valid-attachments"] = Value::Null;
    node.call_as("host-local", "GC", ("", ""), &[], &gc)
        .await
        .unwrap();
    assert_eq!(node.leases().await.len(), 0);
}

#[tokio::test]
async fn i02_as_ptp_a_pod_is_in_its_subnet_and_reaches_the_gateway() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let (one, two) = (Namespace::new("pod"), Namespace::new("pod"));
    let mut config = host_local(&node, "1.0.0");
    config["type"] = "ptp".into();
    config["ipMasq"] = true.into();
    config["mtu"] = 1400.into();
    let result = node
        .call_as("ptp", "ADD", ("c", &one.path()), &[], &config)
        .await
        .unwrap();
    node.call_as("ptp", "ADD", ("d", &two.path()), &[], &config)
        .await
        .unwrap();
    assert_eq!(
        result["ips"][0],
        json!({ "address": "10.22.0.2/29", "gateway": "10.22.0.1", "interface": 1 })
    );
    assert_eq!(
        result["ips"][1],
        json!({ "address": "fd00:22::10/64", "gateway": "fd00:22::1", "interface": 1 })
    );
    assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0" }]));
    assert_eq!(result["interfaces"][1]["sandbox"], one.path());
    assert!(crate::pods::reaches(&one, &two, "10.22.0.3"), "pod to pod");
    assert!(
        crate::pods::reaches(&one, &two, "fd00:22::11"),
        "pod to pod"
    );
    assert!(
        crate::pods::reaches(&one, &node.space, "10.22.0.1"),
        "pod to gateway"
    );
    let mut check = config.clone();
    check["prevResult"] = result;
    node.call_as("ptp", "CHECK", ("c", &one.path()), &[], &check)
        .await
        .unwrap();
    for (id, pod) in [("c", &one), ("d", &two)] {
        node.call_as("ptp", "DEL", (id, &pod.path()), &[], &config)
            .await
            .unwrap();
    }
    assert_eq!(node.pod_links().await, [""; 0]);
    assert_eq!(node.leases().await.len(), 0);
}

#[tokio::test]
async fn i05_an_older_or_empty_answer_of_ipam_is_understood() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    other(
        &node,
        r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.5.0.8/24","gateway":"10.5.0.1","routes":[{"dst":"192.0.2.0/24"}]}}"#,
    );
    let pod = Namespace::new("pod");
    let config = delegated(&node, "1.0.0");
    let result = node
        .call_as("ptp", "ADD", ("c", &pod.path()), &[], &config)
        .await
        .unwrap();
    assert_eq!(address(&result).to_string(), "10.5.0.8");
    assert_eq!(result["routes"], json!([{ "dst": "192.0.2.0/24" }]));
    for answer in ["", "{", r#"{"ips":null}"#] {
        other(&node, answer);
        let empty = Namespace::new("pod");
        let answer = node
            .call_as("seaway-cni", "ADD", ("e", &empty.path()), &[], &config)
            .await;
        assert_eq!(answer.unwrap_err().0, 105);
    }
}
