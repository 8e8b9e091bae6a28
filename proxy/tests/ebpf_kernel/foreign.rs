//! Pods of other plugins: links under any name and without an address, known by the routes that lead to them.

use std::time::{Duration, Instant};

use crate::world::{
    CLUSTER_IP, CLUSTER_IP6, LOCAL_POD, LOCAL_POD6, NODE_IP, NODE_IP6, POD_LINK, REMOTE_POD,
    REMOTE_POD6, World, service, sync,
};
use seaway_proxy::dataplane::Dataplane;

const LINK: &str = "cali12ab34cd567";

/// Gives the pod of the node its link anew, as plugins do that route: the link first, its addresses and routes later.
fn rename_pod_link(world: &World) {
    let pod = world.netns("pod");
    let pod = pod.path().unwrap().file_name().unwrap().display();
    world.ip(
        "node",
        &format!(
            "link del {POD_LINK}
             link add {LINK} mtu 1450 type veth peer name eth0 netns {pod}
             link set {LINK} address 02:00:00:00:01:01 up"
        ),
    );
    world.pod_side("pod", LOCAL_POD, LOCAL_POD6);
}

fn add_routes(world: &World) {
    world.ip(
        "node",
        &format!(
            "route add {LOCAL_POD}/32 dev {LINK} scope link
             route add {LOCAL_POD6}/128 dev {LINK}"
        ),
    );
}

/// Node ports from outside, whose answers come back by the pod's link, and what the pod sends past the socket hooks.
fn assert_served(world: &World) {
    for (from, to) in [
        ("out", format!("{NODE_IP}:30080")),
        ("pod", format!("{CLUSTER_IP}:80")),
    ] {
        for kind in ["tcp", "udp"] {
            let answer = world.client(from, false, &format!("{kind} {to}"));
            assert!(answer.starts_with("local"), "{from} {kind}: {answer}");
            assert!(
                answer.ends_with(&format!("from {to}")),
                "{from} {kind}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_pod_link_under_a_foreign_name_is_found_by_its_route() {
    let world = World::new();
    rename_pod_link(&world);
    add_routes(&world);
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(LOCAL_POD, true)])).await;
    assert_served(&world);
    sync(&mut plane, &service(&[(LOCAL_POD6, true)])).await;
    let answer = world.client("out", false, &format!("tcp [{NODE_IP6}]:30080"));
    assert!(answer.starts_with("local"), "{answer}");
    for (backend, to) in [
        (REMOTE_POD, format!("{CLUSTER_IP}:80")),
        (REMOTE_POD6, format!("[{CLUSTER_IP6}]:80")),
    ] {
        sync(&mut plane, &service(&[(backend, false)])).await;
        let answer = world.client("pod", false, &format!("tcp {to}"));
        assert!(answer.starts_with("remote"), "{answer}");
    }
}

#[tokio::test]
async fn one_that_comes_later_is_found_when_its_route_comes() {
    let world = World::new();
    rename_pod_link(&world);
    world.serve("pod", "local");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(LOCAL_POD, true)])).await;
    let attached = |text: &str| text.matches("tc_").count();
    let before = attached(&plane.dump().await.unwrap());
    add_routes(&world);
    let started = Instant::now();
    let mut after = before;
    while after == before && started.elapsed() < Duration::from_secs(2) {
        let _ = tokio::time::timeout(Duration::from_millis(5), plane.watch()).await;
        after = attached(&plane.dump().await.unwrap());
    }
    assert_eq!(after, before + 2, "{}", plane.dump().await.unwrap());
    assert_served(&world);
}
