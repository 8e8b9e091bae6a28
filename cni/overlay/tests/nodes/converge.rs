//! How soon the kernel of a node is as it should be after a change, and that a change which nobody tells is found.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use seaway_kernel::{Command, RouteFilter, Scope};
use seaway_model::ownership::VXLAN_LINK;

use crate::support::{Node, Pair, mended};

/// By when the kernel is as it should be.
const LIMIT: Duration = Duration::from_secs(1);

/// The machine may be busy with other things; of so many tries one is in time.
const TRIES: usize = 8;

/// What leads to peers, as text; nothing without the device.
async fn ways(node: &Node) -> Vec<String> {
    let netlink = node.netlink();
    let Some(device) = netlink.link(VXLAN_LINK).await.unwrap() else {
        return Vec::new();
    };
    let filter = RouteFilter {
        link: Some(device.index),
        protocol: Some(83),
        ..RouteFilter::default()
    };
    let mut ways = vec![format!("{} up {}", device.mac.unwrap(), device.up)];
    for route in netlink.routes(filter).await.unwrap() {
        ways.push(route.to_string());
    }
    for neighbour in netlink.neighbours(device.index).await.unwrap() {
        if let Some(mac) = neighbour.mac {
            ways.push(format!("{} is {mac}", neighbour.address));
        }
    }
    ways.sort();
    ways
}

/// How long until all these are there, and so many in all.
async fn until(node: &Node, count: usize, wanted: &[&str]) -> Duration {
    let started = Instant::now();
    loop {
        let ways = ways(node).await;
        let there = |part: &&str| ways.iter().any(|way| way.contains(*part));
        if ways.len() == count && wanted.iter().all(there) {
            return started.elapsed();
        }
        assert!(
            started.elapsed() < Duration::from_secs(25),
            "{wanted:?}: {ways:#?}\n{}",
            node.log()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether one of some tries is in time.
async fn in_time(what: &str, mut attempt: impl AsyncFnMut(usize) -> Duration) {
    let mut all = Vec::new();
    for number in 0..TRIES {
        let took = attempt(number).await;
        if took < LIMIT {
            return;
        }
        all.push(took);
    }
    panic!("{what}: {all:?}");
}

#[tokio::test]
async fn changes_of_nodes_are_in_the_kernel_within_a_second() {
    let pair = Pair::start().await;
    let one = &pair.nodes[0];
    pair.declare("n3", "192.168.100.60", "10.244.3.0/24");
    until(one, 5, &["dst 192.168.100.60 "]).await;
    in_time("another address", async |number| {
        let address = format!("192.168.100.{}", 61 + number);
        pair.declare("n3", &address, "10.244.3.0/24");
        until(one, 5, &[&format!("dst {address} ")]).await
    })
    .await;
    in_time("added again with another pod CIDR", async |number| {
        pair.withdraw("n3");
        until(one, 3, &[]).await;
        let network = format!("10.244.{}.0", 100 + number);
        pair.declare("n3", "192.168.100.3", &format!("{network}/24"));
        let wanted = [format!("{network}/24 "), format!("{network} is ")];
        until(one, 5, &[&wanted[0], &wanted[1]]).await
    })
    .await;
}

#[tokio::test]
async fn what_happens_to_the_device_is_mended_within_a_second() {
    let pair = Pair::start().await;
    let one = &pair.nodes[0];
    let wanted = ["up true", "10.244.2.0/24 ", "10.244.2.0 is "];
    until(one, 3, &wanted).await;
    in_time("deleted", async |_| {
        one.netlink().delete_link_named(VXLAN_LINK).await.unwrap();
        until(one, 3, &wanted).await
    })
    .await;
    in_time("down", async |_| {
        let device = one.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
        one.netlink().set_down(device.index).await.unwrap();
        until(one, 3, &wanted).await
    })
    .await;
    in_time("down and up", async |_| {
        let device = one.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
        one.netlink().set_down(device.index).await.unwrap();
        one.netlink().set_up(device.index).await.unwrap();
        until(one, 3, &wanted).await
    })
    .await;
}

#[tokio::test]
async fn another_vni_and_another_port_are_there_a_second_after_the_start() {
    let mut pair = Pair::start().await;
    in_time("another VNI", async |number| {
        let one = &mut pair.nodes[0];
        one.daemon.kill();
        one.flags = vec![format!("--vni={}", 7 + number)];
        one.start();
        until(one, 3, &[&format!("encap id {} ", 7 + number)]).await
    })
    .await;
    in_time("another port", async |number| {
        let one = &mut pair.nodes[0];
        one.daemon.kill();
        let port = 4789 + number as u16;
        one.flags = vec![format!("--port={port}")];
        let before = one.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
        one.start();
        let started = Instant::now();
        // A device of another port is another device.
        loop {
            let now = one.netlink().link(VXLAN_LINK).await.unwrap();
            if now.is_some_and(|now| now.index != before.index) {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(25), "{}", one.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        until(one, 3, &["up true", "encap id 1 "]).await;
        started.elapsed()
    })
    .await;
}

#[tokio::test]
async fn an_address_of_this_node_is_followed_within_a_second() {
    let pair = Pair::start().await;
    let one = &pair.nodes[0];
    let netlink = one.netlink();
    let link = netlink.link("eth0").await.unwrap().unwrap().index;
    in_time("this node's address", async |number| {
        let address = format!("192.168.100.{}", 100 + number);
        let network = format!("{address}/24").parse().unwrap();
        netlink
            .add_address(link, network, Scope::Global)
            .await
            .unwrap();
        pair.declare("n1", &address, "10.244.1.0/24");
        let mac = format!("02:53:c0:a8:64:{:02x}", 100 + number);
        until(one, 3, &[&format!("src {address} "), &mac]).await
    })
    .await;
}

/// More events than there is room for: the one that matters is among those that the kernel throws away.
#[tokio::test]
async fn lost_events_make_it_look_at_everything() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    mended(&a, &b, one);
    let before = one.log().len();
    one.daemon.signal(Signal::SIGSTOP);
    let noise: String = (0..20_000)
        .flat_map(|_| ["add", "del"])
        .map(|verb| format!("route {verb} 198.51.100.0/24 dev {VXLAN_LINK}\n"))
        .collect();
    let flood = Command::new("ip").args(["-batch", "-"]).stdin(noise);
    flood.netns(&one.netns).output().await.unwrap();
    let netlink = one.netlink();
    let ours = RouteFilter {
        protocol: Some(83),
        ..RouteFilter::default()
    };
    let routes = netlink.routes(ours).await.unwrap();
    for route in routes.iter().filter(|route| route.encap.is_some()) {
        netlink.delete_route(route).await.unwrap();
    }
    one.daemon.signal(Signal::SIGCONT);
    mended(&a, &b, one);
    one.wait(|status| status.in_sync).await;
    let log = one.log()[before..].to_owned();
    assert!(log.contains("kernel events were lost"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}
