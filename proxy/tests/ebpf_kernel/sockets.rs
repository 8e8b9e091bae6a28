//! Connected UDP sockets whose backend leaves.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use seaway_model::Change;
use seaway_proxy::conntrack::{Cleaner, Settings};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::Sockets;

use crate::world::{
    CLUSTER_IP, CLUSTER_IP6, Client, LOCAL_POD, LOCAL_POD6, REMOTE_POD, REMOTE_POD6, World,
    service, sync,
};

/// The sockets that were translated are ended and connect anew, wherever they are; one that talks to the same backend by
/// itself goes on.
async fn ended_with_their_backend(
    (gone, stays): (&str, &str),
    cluster_ips: &[String],
    loopback: &str,
    direct: &str,
) {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    let mut registry = Registry::default();
    let sockets = Sockets::new(&world.bpffs, &mut registry);
    let cleaner = Cleaner::start(Settings::default(), Arc::new(sockets));
    let desired = service(&[(gone, false)]);
    sync(&mut plane, &desired).await;
    cleaner.programmed(&desired, &Change::Full);

    let start = |from: &str, to: &str| world.start_client(from, true, &format!("udp-follow {to}"));
    let mut translated: Vec<Client> = cluster_ips
        .iter()
        .flat_map(|to| [start("pod", to), start("node", to)])
        .chain([start("node", loopback)])
        .collect();
    let mut untranslated = start("pod", direct);
    for client in translated.iter_mut().chain([&mut untranslated]) {
        client.wait_ready();
    }

    // Another one joins: nothing happens to anybody.
    let both = service(&[(gone, false), (stays, true)]);
    let keys = || Change::Services(both.services.keys().cloned().collect());
    plane.apply(plane.plan(&both, &keys())).await.unwrap();
    cleaner.programmed(&both, &keys());
    // And the first one leaves.
    let left = service(&[(stays, true)]);
    plane.apply(plane.plan(&left, &keys())).await.unwrap();
    cleaner.programmed(&left, &keys());
    let count = translated.len();
    for client in translated {
        let result = client.result();
        assert!(result.starts_with("aborted | local"), "{result}");
    }
    untranslated.stop();
    let result = untranslated.result();
    assert!(result.starts_with("steady | remote"), "{result}");
    // A client knows of its end before the look that ended it is over, and counted.
    let closed = format!("seaway_proxy_udp_sockets_closed_total {count}");
    let mut text = String::new();
    for _ in 0..500 {
        text.clear();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        if text.lines().any(|line| line == closed) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_a_backend_that_left_are_ended() {
    ended_with_their_backend(
        (REMOTE_POD, LOCAL_POD),
        &[
            format!("{CLUSTER_IP}:80"),
            format!("[::ffff:{CLUSTER_IP}]:80"),
        ],
        "127.0.0.1:30080",
        &format!("{REMOTE_POD}:8080"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_they_are_over_ipv6() {
    ended_with_their_backend(
        (REMOTE_POD6, LOCAL_POD6),
        &[format!("[{CLUSTER_IP6}]:80")],
        "[::1]:30080",
        &format!("[{REMOTE_POD6}]:8080"),
    )
    .await;
}
