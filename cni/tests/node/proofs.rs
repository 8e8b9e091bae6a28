//! `seaway-cni ipam` and `seaway-cni gc`: what proves that the owner of an address lives, and what does not.

use std::collections::BTreeMap;

use seaway_kernel::{Command, NetNs};
use serde_json::Value;

use crate::support::{Namespace, Node, address};

/// What the tool says in the node's namespace.
async fn say(node: &Node, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_seaway-cni"))
        .args(args)
        .arg("--state-dir")
        .arg(node.state_dir())
        .netns(&node.space.netns)
        .output();
    output.await.unwrap().text()
}

/// By container: whether the interface and the namespace are there.
async fn proofs(node: &Node) -> BTreeMap<String, (bool, bool)> {
    let list: Vec<Value> = serde_json::from_str(&say(node, &["ipam", "--json"]).await).unwrap();
    let of = |entry: &Value| {
        let container = entry["containerID"].as_str()?;
        let there = |key| entry[key].as_bool();
        let proof = (there("interfaceIsThere")?, there("namespaceIsThere")?);
        Some((container.to_owned(), proof))
    };
    list.iter().filter_map(of).collect()
}

/// As if ADD had been right after boot.
fn make_old(node: &Node, result: &Value) {
    let file = node.entry(&address(result).to_string());
    let mut lease: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    lease["since"] = 0.into();
    std::fs::write(file, lease.to_string()).unwrap();
}

#[tokio::test]
async fn only_what_two_proofs_call_dead_is_freed() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let names = ["alive", "renamed", "unnamed", "dead", "young"];
    let pods = names.map(|_| Namespace::new("pod"));
    let mut results = Vec::new();
    for (id, pod) in names.iter().zip(&pods) {
        let result = node.add(id, pod).await.unwrap();
        if *id != "young" {
            make_old(&node, &result);
        }
        results.push(result);
    }
    let [_, _, unnamed, dead, young] = &pods;
    let netlink = node.space.netlink();
    let end = results[1]["interfaces"][0]["name"].as_str().unwrap();
    let end = netlink.link(end).await.unwrap().unwrap();
    netlink.rename(end.index, "other").await.unwrap();
    // Its processes hold it: here this one does.
    NetNs::delete(unnamed.name()).unwrap();
    for pod in [dead, young] {
        pod.netlink().delete_link_named("eth0").await.unwrap();
        NetNs::delete(pod.name()).unwrap();
    }
    let expected = [
        ("alive", (true, true)),
        ("renamed", (false, true)),
        ("unnamed", (true, false)),
        ("dead", (false, false)),
        ("young", (false, false)),
    ];
    let expected = expected.map(|(name, proof)| (name.to_owned(), proof));
    assert_eq!(proofs(&node).await, BTreeMap::from(expected));
    let table = say(&node, &["ipam"]).await;
    for words in [
        "link and namespace are there",
        "link is gone, namespace is there",
        "link is there, namespace is gone",
        "link and namespace are gone",
        "dead (eth0)",
    ] {
        assert!(table.contains(words), "{table}");
    }

    let freed = format!("{} of container dead\n", address(&results[3]));
    assert_eq!(
        say(&node, &["gc", "--dry-run"]).await,
        format!("would free {freed}")
    );
    assert_eq!(proofs(&node).await.len(), 5);
    assert_eq!(say(&node, &["gc"]).await, format!("frees {freed}"));
    let left: Vec<_> = proofs(&node).await.into_keys().collect();
    assert_eq!(left, ["alive", "renamed", "unnamed", "young"]);
    node.check("alive", &pods[0], &results[0]).await.unwrap();
    assert_eq!(say(&node, &["gc"]).await, "");
}
