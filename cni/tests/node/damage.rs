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
async fn a_pod_where_ipv6_is_switched_off_gets_it_on_its_interface() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let pod = Namespace::new("pod");
    let off = || sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").map(drop);
    pod.netns.run(off).unwrap().unwrap();
    let result = node.add("c", &pod).await.unwrap();
    node.check("c", &pod, &result).await.unwrap();
    assert!(crate::pods::reaches(&node.space, &pod, "fd00:1::1"));
}

