//! Real packets through the loaded programs, in namespaces that each test makes for itself.

use crate::world::{
    CLUSTER_IP, LARGE, LOCAL_POD, LOCAL_POD6, NODE_IP, NODE_IP6, POD_LINK, REMOTE_POD, REMOTE_POD6,
    World, service, sync,
};
use seaway_kernel::{Batch, RouteSocket};
use seaway_model::{Change, Desired, ObjectKey};
use seaway_proxy::dataplane::Dataplane;

#[tokio::test]
async fn sockets_of_pods_and_of_the_node_reach_a_service() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(REMOTE_POD, false)])).await;
    for kind in ["tcp", "udp", "udp-connected"] {
        // A pod by cluster IP: its own address arrives, and it sees the Service as its peer.
        let answer = world.client("pod", true, &format!("{kind} {CLUSTER_IP}:80"));
        assert!(
            answer.starts_with(&format!("remote {LOCAL_POD}:")),
            "{kind}: {answer}"
        );
        assert!(
            answer.ends_with(&format!("from {CLUSTER_IP}:80")),
            "{kind}: {answer}"
        );
        // The node by its node port, on any of its addresses.
        for addr in [NODE_IP, "127.0.0.1", CLUSTER_IP] {
            let port = if addr == CLUSTER_IP { 80 } else { 30080 };
            let answer = world.client("node", true, &format!("{kind} {addr}:{port}"));
            assert!(
                answer.starts_with("remote 10.244.1.0:"),
                "{kind} {addr}: {answer}"
            );
            assert!(
                answer.ends_with(&format!("from {addr}:{port}")),
                "{kind} {addr}: {answer}"
            );
        }
        // 127.0.0.1 in a pod is the pod.
        let answer = world.client("pod", true, &format!("{kind} 127.0.0.1:30080"));
        assert!(answer.starts_with("error"), "{kind}: {answer}");
        // An IPv6 socket that talks IPv4.
        if kind == "tcp" {
            let answer = world.client("pod", true, &format!("tcp [::ffff:{CLUSTER_IP}]:80"));
            assert!(answer.starts_with("remote"), "{answer}");
            assert!(
                answer.ends_with(&format!("from [::ffff:{CLUSTER_IP}]:80")),
                "{answer}"
            );
        }
    }
    sync(&mut plane, &service(&[])).await;
    let started = std::time::Instant::now();
    for what in ["tcp", "udp-connected", "udp"] {
        let answer = world.client("pod", true, &format!("{what} {CLUSTER_IP}:80"));
        assert_eq!(answer, "error ConnectionRefused", "{what}");
    }
    assert!(started.elapsed().as_secs() < 2, "refused at once");
}

#[tokio::test]
async fn a_node_port_is_reached_from_outside_wherever_the_pod_is() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    for (backend, local, name) in [(LOCAL_POD, true, "local"), (REMOTE_POD, false, "remote")] {
        sync(&mut plane, &service(&[(backend, local)])).await;
        for kind in ["tcp", "udp", "udp-connected"] {
            let answer = world.client("out", false, &format!("{kind} {NODE_IP}:30080"));
            assert!(
                answer.starts_with(&format!("{name} 10.244.1.0:")),
                "{kind}: {answer}\n{}",
                plane.dump().await.unwrap()
            );
            assert!(
                answer.ends_with(&format!("from {NODE_IP}:30080")),
                "{kind}: {answer}"
            );
        }
    }
    sync(&mut plane, &service(&[])).await;
    for kind in ["tcp", "udp-connected"] {
        let answer = world.client("out", false, &format!("{kind} {NODE_IP}:30080"));
        assert_eq!(answer, "error ConnectionRefused", "{kind}");
    }
}

#[tokio::test]
async fn a_pod_outside_of_the_cgroup_is_served_packet_by_packet() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(REMOTE_POD, false)])).await;
    for kind in ["tcp", "udp"] {
        let answer = world.client("pod", false, &format!("{kind} {CLUSTER_IP}:80"));
        assert!(
            answer.starts_with(&format!("remote {LOCAL_POD}:")),
            "{kind}: {answer}"
        );
        assert!(
            answer.ends_with(&format!("from {CLUSTER_IP}:80")),
            "{kind}: {answer}"
        );
    }
    // To itself: masqueraded, or the answer would never leave the pod.
    sync(&mut plane, &service(&[(LOCAL_POD, true)])).await;
    for kind in ["tcp", "udp"] {
        let answer = world.client("pod", false, &format!("{kind} {CLUSTER_IP}:80"));
        assert!(answer.starts_with("local 10.244.1.0:"), "{kind}: {answer}");
    }
    // To the node itself: no masquerade, the reply is translated as it leaves.
    world.serve("node", "node");
    sync(&mut plane, &service(&[(NODE_IP, true)])).await;
    for (from, addr) in [
        ("pod", format!("{CLUSTER_IP}:80")),
        ("out", format!("{NODE_IP}:30080")),
    ] {
        for kind in ["tcp", "udp"] {
            let answer = world.client(from, false, &format!("{kind} {addr}"));
            assert!(answer.starts_with("node "), "{from} {kind}: {answer}");
            assert!(
                answer.ends_with(&format!("from {addr}")),
                "{from} {kind}: {answer}"
            );
        }
    }
}

/// They come behind the programs, where the CNI plugin limits what a pod sends.
#[tokio::test]
async fn filters_of_others_see_what_a_pod_sends() {
    let world = World::new();
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(REMOTE_POD, false)])).await;
    world.ip(
        "node",
        "link add sb0 type ifb
         link set sb0 up",
    );
    let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
    let passed = || {
        // Of the namespace that the thread is in.
        let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = links.lines().find(|line| line.contains("sb0:")).unwrap();
        let packets = line.split_whitespace().nth(2).unwrap();
        packets.parse::<u64>().unwrap()
    };
    let netns = world.netns("node");
    netns
        .run(|| {
            let mut batch = Batch::default();
            batch.redirect(index(POD_LINK), index("sb0"));
            RouteSocket::open().unwrap().apply(&batch).unwrap();
        })
        .unwrap();
    let answer = world.client("pod", false, &format!("tcp {REMOTE_POD}:8080"));
    assert!(answer.starts_with("remote "), "{answer}");
    assert!(netns.run(passed).unwrap() >= 3);
}

/// Two Services claim one cluster IP and node port: the one with the smaller name has them, in whatever order they
/// come; when it goes the other takes over.
#[tokio::test]
async fn of_two_services_at_one_frontend_the_smaller_key_serves() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    let mut desired = Desired::default();
    sync(&mut plane, &desired).await;
    let [a, b] = ["a", "b"].map(|name| ObjectKey::new("default", name));
    let rules = |backends: &[(&str, bool)]| {
        let mut one = service(backends).services;
        one.pop_first().map(|(_, rules)| rules)
    };
    // b is there first, then a; a without endpoints keeps b out; a goes, comes back, and b goes.
    let history = [
        (&b, rules(&[(REMOTE_POD, false)]), "remote"),
        (&a, rules(&[(LOCAL_POD, true)]), "local"),
        (&a, rules(&[]), "error ConnectionRefused"),
        (&a, None, "remote"),
        (&a, rules(&[(LOCAL_POD, true)]), "local"),
        (&b, None, "local"),
    ];
    for (i, (key, rules, who)) in history.into_iter().enumerate() {
        match rules {
            Some(rules) => _ = desired.services.insert(key.clone(), rules),
            None => _ = desired.services.remove(key),
        }
        let plan = plane.plan(&desired, &Change::Services([key.clone()].into()));
        plane.apply(plan).await.unwrap();
        for (from, in_cgroup, addr) in [
            // Through the socket hooks, and packet by packet.
            ("node", true, format!("{CLUSTER_IP}:80")),
            ("out", false, format!("{NODE_IP}:30080")),
        ] {
            let answer = world.client(from, in_cgroup, &format!("tcp {addr}"));
            assert!(answer.starts_with(who), "step {i} from {from}: {answer}");
        }
    }
}

/// A backend that does not listen says so by ICMP, which quotes what the backend got and not what the client sent.
#[tokio::test]
async fn an_error_of_the_backend_reaches_the_client() {
    let world = World::new();
    let mut plane = world.plane(world.config());
    for (backend, local, to) in [
        (LOCAL_POD, true, format!("{NODE_IP}:30080")),
        (REMOTE_POD, false, format!("{NODE_IP}:30080")),
        (LOCAL_POD6, true, format!("[{NODE_IP6}]:30080")),
        (REMOTE_POD6, false, format!("[{NODE_IP6}]:30080")),
    ] {
        sync(&mut plane, &service(&[(backend, local)])).await;
        for kind in ["tcp", "udp-connected"] {
            let answer = world.client("out", false, &format!("{kind} {to}"));
            assert_eq!(answer, "error ConnectionRefused", "{backend} {kind}");
        }
    }
    let counters = plane.counters().unwrap();
    let errors = counters.iter().find(|(v, _)| v.label() == "icmp_error");
    assert_eq!(errors.map(|(_, count)| *count), Some(4));
}

/// Datagrams in three fragments, there and back.
#[tokio::test]
async fn fragments_are_translated_there_and_back() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    for short in ["out", "pod", "peerpod"] {
        world.ip(short, "link set eth0 mtu 1400");
    }
    let mut plane = world.plane(world.config());
    for (backend, name, to) in [
        (LOCAL_POD, "local", format!("{NODE_IP}:30080")),
        (REMOTE_POD, "remote", format!("{NODE_IP}:30080")),
        (LOCAL_POD6, "local", format!("[{NODE_IP6}]:30080")),
        (REMOTE_POD6, "remote", format!("[{NODE_IP6}]:30080")),
    ] {
        let desired = service(&[(backend, name == "local")]);
        sync(&mut plane, &desired).await;
        let answer = world.client("out", false, &format!("udp-large {to}"));
        let dump = plane.dump().await.unwrap();
        assert!(answer.starts_with(name), "{backend}: {answer}\n{dump}");
        let arrived = answer.chars().filter(|c| *c == 'x').count();
        assert_eq!(arrived, LARGE, "{backend}");
    }
}
