//! `seaway-cni cleanup`: everything of ours, and nothing of others.

use std::ffi::OsStr;

use seaway_kernel::nftables::Transaction;
use seaway_kernel::{Command, CommandError, Nftables, RouteSocket, VethOptions};
use serde_json::{Value, json};

use crate::support::{Namespace, Node};

/// A pod with links, elements of the table, and an address.
async fn add(node: &Node, id: &str, pod: &Namespace) -> (Value, Value) {
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80 }],
        "bandwidth": { "egressRate": 8_000_000, "egressBurst": 8_000_000 },
    });
    let result = node.call("ADD", id, &pod.path(), config.clone()).await;
    (config, result.unwrap())
}

/// Runs it; an error is what it says.
async fn cleanup(node: &Node, flags: &[&OsStr]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_seaway-cni"))
        .args(["cleanup", "--state-dir"])
        .arg(node.state_dir())
        .args(flags)
        .netns(&node.space.netns)
        .output()
        .await;
    match output {
        Ok(output) => Ok(output.text()),
        Err(CommandError::Failed { stderr, .. }) => Err(stderr),
        Err(other) => panic!("{other}"),
    }
}

fn links(node: &Node) -> Vec<String> {
    let mut host = RouteSocket::in_namespace(&node.space.netns).unwrap();
    let names = host.links().unwrap().into_iter().map(|link| link.name);
    names
        .filter(|name| name.starts_with("sw") || name.starts_with("sb"))
        .collect()
}

fn has_table(node: &Node, name: &str) -> bool {
    let mut nft = Nftables::in_namespace(&node.space.netns).unwrap();
    nft.has_table(name).unwrap()
}

#[tokio::test]
async fn it_is_refused_while_pods_are_alive_and_complete_when_they_are_gone() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let (config, result) = add(&node, "one", &pod).await;
    let refused = cleanup(&node, &[]).await.unwrap_err();
    assert!(refused.contains("10.244.1.1 of container one"), "{refused}");
    assert!(refused.contains("--force"), "{refused}");
    let mut check = config.clone();
    check["prevResult"] = result;
    node.call("CHECK", "one", &pod.path(), check).await.unwrap();

    node.call("DEL", "one", &pod.path(), config).await.unwrap();
    assert!(has_table(&node, "seaway-cni"), "it stays for the next pod");
    let said = cleanup(&node, &[]).await.unwrap();
    assert!(
        said.contains("removed nftables table inet seaway-cni\n"),
        "{said}"
    );
    assert!(!has_table(&node, "seaway-cni"));
    assert_eq!(links(&node), [""; 0]);
    assert!(!node.state_dir().join("ipam").exists());
    // There is nothing left to do, and a pod may come again.
    assert_eq!(cleanup(&node, &[]).await.unwrap(), "nothing to remove\n");
    add(&node, "two", &pod).await;
}

#[tokio::test]
async fn by_force_it_removes_the_links_of_pods_and_nothing_of_others() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let netlink = node.space.netlink();
    let options = VethOptions::default();
    netlink.add_veth("sw0", "sb1", options).await.unwrap();
    let mut nft = Nftables::in_namespace(&node.space.netns).unwrap();
    let mut others = Transaction::new("others");
    others.create_table();
    nft.commit(&others).unwrap();
    let (bin, lists) = (node.bin_dir(), node.run_dir().join("net.d"));
    let install = Command::new(env!("CARGO_BIN_EXE_seaway-cni"))
        .args(["install", "--cni-bin-dir"])
        .arg(&bin)
        .arg("--conflist")
        .arg(&lists);
    install.output().await.unwrap();
    let files = [bin.join("seaway-cni"), lists.join("10-seaway.conflist")];
    assert!(files.iter().all(|file| file.exists()));

    let pod = Namespace::new("pod");
    let (config, _) = add(&node, "one", &pod).await;
    let flags = ["--force", "--cni-bin-dir"].map(OsStr::new);
    let flags = [
        &flags[..],
        &[bin.as_os_str(), OsStr::new("--conflist"), lists.as_os_str()],
    ];
    cleanup(&node, &flags.concat()).await.unwrap();
    let mut left = links(&node);
    left.sort();
    assert_eq!(left, ["sb1", "sw0"]);
    assert!(!has_table(&node, "seaway-cni"));
    assert!(has_table(&node, "others"));
    assert!(files.iter().all(|file| !file.exists()), "{files:?}");
    assert!(pod.netlink().link("eth0").await.unwrap().is_none());
    // The runtime does not know of it.
    node.call("DEL", "one", &pod.path(), config).await.unwrap();
}
