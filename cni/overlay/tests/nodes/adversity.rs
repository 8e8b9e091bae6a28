//! What nobody should do, and somebody does: it costs the one that it is about, is said once, and mended.

use std::collections::BTreeMap;

use seaway_kernel::{Command, NetNs, RouteFilter, Scope};
use seaway_model::ownership::VXLAN_LINK;
use seaway_overlay::admin::CONNECTED;
use seaway_overlay::guard::{Guard, Rules};

use crate::support::{Layout, Node, Pair, V4, V6, mended};

async fn run(node: &Node, program: &str, args: &str) -> String {
    let command = Command::new(program).args(args.split(' '));
    let output = command.netns(&node.netns).output().await;
    output.unwrap().text()
}

#[tokio::test]
async fn a_pod_cidr_over_the_network_of_the_nodes_does_not_cut_them_off() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    for (address, cidr, why) in [
        (
            "192.168.100.3",
            "192.168.100.0/24",
            "covers address 192.168.100.",
        ),
        (
            "10.244.2.7",
            "10.244.3.0/24",
            "covers address 10.244.2.7 of node n3",
        ),
        (
            "192.168.100.3",
            "224.0.0.0/24",
            "pods cannot have addresses",
        ),
        ("127.0.0.1", "10.244.3.0/24", "no InternalIP address"),
    ] {
        pair.declare("n3", address, cidr);
        let status = one
            .wait(|status| {
                let mut states = status.peers.iter().map(|peer| &peer.state);
                states.any(|state| state.contains(why))
            })
            .await;
        assert!(status.in_sync, "{:?}", status.errors);
        mended(&a, &b, one);
    }
    let routes = one.netlink().routes(RouteFilter::default()).await.unwrap();
    // A route of ours would have taken its place, and it does not come back.
    let connected = "192.168.100.0/24".parse().unwrap();
    let mut routes = routes.iter().filter(|route| route.destination == connected);
    assert_eq!(routes.next().unwrap().gateway, None);
}

