//! What a change touches in the kernel, by what the kernel tells everybody.

use seaway_kernel::{Event, Route, Scope, Watch, WatchGroups};
use seaway_model::ownership::{ROUTE_PROTOCOL, VXLAN_LINK};
use seaway_overlay::admin::Status;

use crate::support::{Layout, Node, Pair, V4, mended};

/// Listens in the namespace of a node, from now on.
struct Ear {
    watch: Watch,
    device: u32,
}

impl Ear {
    async fn new(node: &Node) -> Self {
        let groups = WatchGroups {
            links: true,
            addresses: true,
            routes: true,
            neighbours: true,
        };
        let watch = Watch::in_namespace(&node.netns, groups).unwrap();
        let device = node.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
        Self {
            watch,
            device: device.index,
        }
    }

    /// What happened until now to what is the overlay's, as text: each change once, sorted.
    async fn heard(&mut self, node: &Node) -> Vec<String> {
        // A change of our own, which comes behind all others.
        let last = Route {
            link: Some(self.device),
            scope: Scope::Link,
            ..Route::new("198.51.100.0/24".parse().unwrap(), 4)
        };
        node.netlink().add_route(&last).await.unwrap();
        node.netlink().delete_route(&last).await.unwrap();
        let mut heard = Vec::new();
        loop {
            let text = match self.watch.next().await.unwrap() {
                Event::RouteDeleted(route) if route.destination == last.destination => break,
                Event::RouteSet(route) if route.protocol == ROUTE_PROTOCOL => {
                    format!("route {} set", route.destination)
                }
                Event::RouteDeleted(route) if route.protocol == ROUTE_PROTOCOL => {
                    format!("route {} deleted", route.destination)
                }
                // Before it deletes one, the kernel says that it is permanent no more.
                Event::NeighbourSet(seen) if seen.link == self.device && seen.permanent => {
                    format!("neighbour {} set", seen.address)
                }
                Event::NeighbourDeleted(seen) if seen.link == self.device => {
                    format!("neighbour {} deleted", seen.address)
                }
                Event::LinkSet(link) | Event::LinkDeleted(link) if link.index == self.device => {
                    "the device".to_owned()
                }
                Event::AddressSet(address) | Event::AddressDeleted(address)
                    if address.link == self.device && address.scope == Scope::Global =>
                {
                    format!("address {}", address.network)
                }
                _ => continue,
            };
            heard.push(text);
        }
        heard.sort();
        heard.dedup();
        heard
    }
}

/// Whether a peer is there with that address and those pod CIDRs, and everything is in place.
fn there<'a>(name: &'a str, address: &'a str, cidrs: &'a [&str]) -> impl Fn(&Status) -> bool + 'a {
    move |status| {
        let peer = status.peers.iter().find(|peer| peer.name == name);
        let as_wanted =
            peer.is_some_and(|p| p.address.as_deref() == Some(address) && p.pod_cidrs == cidrs);
        status.in_sync && as_wanted
    }
}

#[tokio::test]
async fn a_change_of_one_peer_touches_no_other() {
    let pair = Pair::with(Layout::of_both_families(&[V4])).await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    let third = |address: &str, cidrs: [&str; 2]| {
        pair.declare_all("n3", &[address.to_owned()], &cidrs.map(str::to_owned));
    };
    let before = ["10.244.3.0/24", "fd01:3::/64"];
    third("192.168.100.3", before);
    one.wait(there("n3", "192.168.100.3", &before)).await;
    let mut ear = Ear::new(one).await;

    // Another address: the same routes and neighbours, with others in them.
    third("192.168.100.33", before);
    one.wait(there("n3", "192.168.100.33", &before)).await;
    assert_eq!(
        ear.heard(one).await,
        [
            "neighbour 10.244.3.0 set",
            "neighbour fd01:3:: set",
            "route 10.244.3.0/24 set",
            "route fd01:3::/64 set",
        ]
    );

    // It goes, and comes again with another pod CIDR.
    pair.withdraw("n3");
    one.wait(|status| status.in_sync && status.peers.len() == 1)
        .await;
    assert_eq!(
        ear.heard(one).await,
        [
            "neighbour 10.244.3.0 deleted",
            "neighbour fd01:3:: deleted",
            "route 10.244.3.0/24 deleted",
            "route fd01:3::/64 deleted",
        ]
    );
    let after = ["10.244.30.0/24", "fd01:3::/64"];
    third("192.168.100.33", after);
    one.wait(there("n3", "192.168.100.33", &after)).await;
    assert_eq!(
        ear.heard(one).await,
        [
            "neighbour 10.244.30.0 set",
            "neighbour fd01:3:: set",
            "route 10.244.30.0/24 set",
            "route fd01:3::/64 set",
        ]
    );

    // One that is left out costs nothing in the kernel, and what nobody wants to know even less.
    pair.declare("n4", "192.168.100.2", "10.244.4.0/24");
    one.wait(|status| status.peers.len() == 3).await;
    pair.withdraw("n4");
    one.wait(|status| status.in_sync && status.peers.len() == 2)
        .await;
    assert!(ear.heard(one).await.is_empty());
    mended(&a, &b, one);
}

/// Changes so many Nodes one after the other: each comparison comes behind the events of all that the daemon did before.
async fn change_some(pair: &Pair, round: usize) {
    for number in 3..6 {
        let name = format!("n{number}");
        let address = format!("192.168.100.{}", 100 + 10 * round + number);
        let cidrs = [
            format!("10.244.{number}.0/24"),
            format!("fd01:{number}::/64"),
        ];
        pair.declare_all(&name, std::slice::from_ref(&address), &cidrs);
        let cidrs: Vec<_> = cidrs.iter().map(String::as_str).collect();
        let one = &pair.nodes[0];
        one.wait(there(&name, &address, &cidrs)).await;
    }
}

/// To list everything is most of what a comparison costs. What the daemon did itself does not call for it.
#[tokio::test]
async fn everything_is_listed_once_after_a_start() {
    const LISTINGS: &str = "seaway_overlay_listings_total";
    let mut pair = Pair::idle(Layout::of_both_families(&[V4])).await;
    for number in 1..60 {
        pair.declare_own(number);
    }
    let all = |status: &Status| status.in_sync && status.peers.len() == 58;
    // The device is made, found as it should be, and made anew.
    for (round, flags) in [&[][..], &[], &["--port=4789"]].into_iter().enumerate() {
        let one = &mut pair.nodes[0];
        one.daemon.kill();
        one.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        one.start();
        one.wait(all).await;
        change_some(&pair, round).await;
        let one = &pair.nodes[0];
        assert_eq!(one.metric(LISTINGS).await, 1.0, "{round}: {}", one.log());
    }
    // What others do does.
    let one = &pair.nodes[0];
    let device = one.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
    one.netlink().set_mtu(device.index, 1400).await.unwrap();
    change_some(&pair, 3).await;
    assert_eq!(one.metric(LISTINGS).await, 2.0, "{}", one.log());
    let device = one.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
    assert_eq!(device.mtu, 1450);
}

#[tokio::test]
async fn another_vni_replaces_routes_in_place() {
    let mut pair = Pair::start().await;
    pair.declare("n3", "192.168.100.3", "10.244.3.0/24");
    let both = |status: &Status| status.in_sync && status.peers.len() == 2;
    pair.nodes[0].wait(both).await;
    let one = &mut pair.nodes[0];
    one.daemon.kill();
    let mut ear = Ear::new(one).await;
    one.flags = vec!["--vni=7".to_owned()];
    one.start();
    one.wait(both).await;
    assert_eq!(
        ear.heard(one).await,
        ["route 10.244.2.0/24 set", "route 10.244.3.0/24 set"]
    );
}
