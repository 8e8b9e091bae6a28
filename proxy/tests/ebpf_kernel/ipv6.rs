//! What IPv4 does, over IPv6: with real packets and sockets.

use crate::world::{
    CLUSTER_IP6, LOCAL_POD6, NODE_IP6, OVERLAY6, REMOTE_POD6, World, service, sync,
};
use seaway_proxy::dataplane::Dataplane;

#[tokio::test]
async fn sockets_reach_a_service_over_ipv6() {
    let world = World::new();
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(REMOTE_POD6, false)])).await;
    for kind in ["tcp", "udp", "udp-connected"] {
        let answer = world.client("pod", true, &format!("{kind} [{CLUSTER_IP6}]:80"));
        let expected = format!("remote [{LOCAL_POD6}]:");
        assert!(answer.starts_with(&expected), "{kind}: {answer}");
        let expected = format!("from [{CLUSTER_IP6}]:80");
        assert!(answer.ends_with(&expected), "{kind}: {answer}");
        for addr in [NODE_IP6, "::1", CLUSTER_IP6] {
            let port = if addr == CLUSTER_IP6 { 80 } else { 30080 };
            let answer = world.client("node", true, &format!("{kind} [{addr}]:{port}"));
            let expected = format!("remote [{OVERLAY6}]:");
            assert!(answer.starts_with(&expected), "{kind} {addr}: {answer}");
            let expected = format!("from [{addr}]:{port}");
            assert!(answer.ends_with(&expected), "{kind} {addr}: {answer}");
        }
        // A loopback address in a pod is the pod, and so is the unspecified one.
        for addr in ["::1", "::"] {
            let answer = world.client("pod", true, &format!("{kind} [{addr}]:30080"));
            assert!(answer.starts_with("error"), "{kind}: {answer}");
        }
        // No such port.
        let answer = world.client("pod", true, &format!("{kind} [{CLUSTER_IP6}]:81"));
        assert_eq!(answer, "error ConnectionRefused", "{kind}");
    }
}

#[tokio::test]
async fn packets_reach_a_service_over_ipv6() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    world.serve("node", "node");
    let mut plane = world.plane(world.config());
    for (backend, name) in [
        (LOCAL_POD6, "local"),
        (REMOTE_POD6, "remote"),
        (NODE_IP6, "node"),
    ] {
        let desired = service(&[(backend, backend != REMOTE_POD6)]);
        sync(&mut plane, &desired).await;
        for (from, to) in [
            ("out", format!("[{NODE_IP6}]:30080")),
            ("pod", format!("[{CLUSTER_IP6}]:80")),
        ] {
            for kind in ["tcp", "udp", "udp-connected"] {
                let answer = world.client(from, false, &format!("{kind} {to}"));
                assert!(
                    answer.starts_with(&format!("{name} [")),
                    "{from} {kind}: {answer}\n{}",
                    plane.dump().await.unwrap()
                );
                let masqueraded = answer.starts_with(&format!("{name} [{OVERLAY6}]:"));
                let expected = match (from, name) {
                    // Others come from outside; a pod must not see itself.
                    ("out", "local" | "remote") | ("pod", "local") => true,
                    _ => false,
                };
                assert_eq!(masqueraded, expected, "{from} {kind}: {answer}");
                let expected = format!("from {to}");
                assert!(answer.ends_with(&expected), "{from} {kind}: {answer}");
            }
        }
        // No such port of the cluster IP: told at once.
        for kind in ["tcp", "udp-connected"] {
            let answer = world.client("pod", false, &format!("{kind} [{CLUSTER_IP6}]:81"));
            assert_eq!(answer, "error ConnectionRefused", "{kind}");
        }
    }
}

/// The pod's link carries less than the client's: the client is told so, and cuts its next datagram to fit.
#[tokio::test]
async fn a_client_learns_what_size_fits() {
    let world = World::new();
    world.serve("pod", "local");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(LOCAL_POD6, true)])).await;
    let ask = || world.client("out", false, &format!("udp-large [{NODE_IP6}]:30080"));
    let first = ask();
    assert!(first.starts_with("error"), "{first}");
    let second = ask();
    assert!(second.starts_with("local"), "{second}");
}
