//! Links whose packets have no Ethernet header, for which the programs would take what is in the packets.

use std::time::{Duration, Instant};

use seaway_kernel::Netlink;
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::Observed;

use crate::world::{LOCAL_POD, NODE_IP, World, service, sync};

const UPLINK: &str = "tun9";

fn add_tun(world: &World) {
    world.ip(
        "node",
        &format!(
            "tuntap add dev {UPLINK} mode tun
             address add 10.9.0.1/24 dev {UPLINK}
             link set {UPLINK} up"
        ),
    );
}

#[tokio::test]
async fn they_are_left_alone_and_counted() {
    let world = World::new();
    world.serve("pod", "local");
    add_tun(&world);
    let observed = Observed::default();
    let mut plane = world.plane(world.config()).observed_by(&observed);
    let desired = service(&[(LOCAL_POD, true)]);
    sync(&mut plane, &desired).await;
    let left = || observed.snapshot().unwrap().unwrap().links_left;
    assert_eq!(left(), 1);
    let netlink = Netlink::in_namespace(&world.netns("node")).unwrap();
    let attached = plane.dump().await.unwrap();
    for (name, expected) in [("eth0", true), (UPLINK, false)] {
        let index = netlink.link(name).await.unwrap().unwrap().index;
        let shown = attached
            .lines()
            .any(|line| line.contains(&format!(": link {index},")));
        assert_eq!(shown, expected, "{name}\n{attached}");
    }
    // All others are served.
    let answer = world.client("out", false, &format!("tcp {NODE_IP}:30080"));
    assert!(answer.starts_with("local "), "{answer}");
    // One that goes or comes is followed.
    for (number, change) in [(0, false), (1, true)] {
        match change {
            true => add_tun(&world),
            false => world.ip("node", &format!("link del {UPLINK}")),
        }
        let started = Instant::now();
        while left() != number {
            assert!(started.elapsed() < Duration::from_secs(20), "{number}");
            let _ = tokio::time::timeout(Duration::from_millis(10), plane.watch()).await;
        }
    }
}
