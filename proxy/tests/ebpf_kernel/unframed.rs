//! Links whose packets have no Ethernet header, as uplinks: a tun at each end, between which the test carries packets.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;

use seaway_kernel::link::open_tun;
use seaway_proxy::ebpf::EbpfConfig;

use crate::dsr::counter;
use crate::sizes::may_cut;
use crate::world::{
    CLUSTER_IP, CLUSTER_IP6, LOCAL_POD, LOCAL_POD6, REMOTE_POD, REMOTE_POD6, World, service, sync,
};

const LINK: &str = "tun9";
/// The node's address there, and that of who is behind it.
const NODE: [&str; 2] = ["10.9.0.1", "fd00:9::1"];
const BEHIND: [&str; 2] = ["10.9.0.2", "fd00:9::2"];

/// Carries packets from one end to the other, for as long as the test lives.
fn carry(mut from: File, mut to: File) {
    thread::spawn(move || {
        let mut packet = vec![0; 70_000];
        while let Ok(length) = from.read(&mut packet) {
            // A link that is down loses it.
            let _ = to.write_all(&packet[..length]);
        }
    });
}

fn wire(world: &World) {
    let [node, out] = ["node", "out"].map(|short| {
        let open = || open_tun(LINK).unwrap();
        world.netns(short).run(open).unwrap()
    });
    carry(node.try_clone().unwrap(), out.try_clone().unwrap());
    carry(out, node);
    for (short, [v4, v6]) in [("node", NODE), ("out", BEHIND)] {
        world.ip(
            short,
            &format!(
                "address add {v4}/24 dev {LINK}
                 address add {v6}/64 dev {LINK} nodad
                 link set {LINK} up"
            ),
        );
    }
    world.ip(
        "out",
        &format!(
            "route add 10.244.0.0/16 dev {LINK}
             route add fd00:10:244::/48 dev {LINK}"
        ),
    );
}

fn at(addr: &str, port: u16) -> String {
    std::net::SocketAddr::new(addr.parse().unwrap(), port).to_string()
}

async fn clients_and_endpoints_are_served(settings: impl Fn(EbpfConfig) -> EbpfConfig) {
    let world = World::new();
    wire(&world);
    for (short, name) in [
        ("pod", "local"),
        ("peerpod", "remote"),
        ("node", "node"),
        ("out", "behind"),
    ] {
        world.serve(short, name);
    }
    let mut plane = world.plane(settings(world.config()));
    // Clients behind the link, and whoever answers them.
    for (family, backends) in [
        (
            0,
            [
                (LOCAL_POD, "local"),
                (REMOTE_POD, "remote"),
                (NODE[0], "node"),
            ],
        ),
        (
            1,
            [
                (LOCAL_POD6, "local"),
                (REMOTE_POD6, "remote"),
                (NODE[1], "node"),
            ],
        ),
    ] {
        let to = at(NODE[family], 30080);
        for (backend, name) in backends {
            sync(&mut plane, &service(&[(backend, name != "remote")])).await;
            for kind in ["tcp", "udp", "udp-connected"] {
                let answer = world.client("out", false, &format!("{kind} {to}"));
                assert!(
                    answer.starts_with(&format!("{name} "))
                        && answer.ends_with(&format!("from {to}")),
                    "{backend} {kind}: {answer}"
                );
            }
        }
        // Endpoints behind it, for a pod whose sockets nobody translates.
        sync(&mut plane, &service(&[(BEHIND[family], false)])).await;
        let to = at([CLUSTER_IP, CLUSTER_IP6][family], 80);
        for kind in ["tcp", "udp"] {
            let answer = world.client("pod", false, &format!("{kind} {to}"));
            assert!(
                answer.starts_with("behind ") && answer.ends_with(&format!("from {to}")),
                "{kind}: {answer}"
            );
        }
    }
    // What is none of ours goes on through the stack.
    for to in [LOCAL_POD, LOCAL_POD6] {
        let answer = world.client("out", false, &format!("tcp {}", at(to, 8080)));
        assert!(answer.starts_with("local "), "{answer}");
    }
    // Nobody is there.
    sync(&mut plane, &service(&[])).await;
    for kind in ["tcp", "udp-connected"] {
        let answer = world.client("out", false, &format!("{kind} {}", at(NODE[0], 30080)));
        assert_eq!(answer, "error ConnectionRefused", "{kind}");
    }
}

#[tokio::test]
async fn who_is_behind_them_is_served() {
    clients_and_endpoints_are_served(|config| config).await;
}

#[tokio::test]
async fn so_it_is_where_programs_are_filters() {
    clients_and_endpoints_are_served(|config| EbpfConfig {
        tcx: Some(false),
        ..config
    })
    .await;
}

#[tokio::test]
async fn what_the_stack_cuts_gets_its_source_there_as_well() {
    let world = World::new();
    wire(&world);
    may_cut(&world, "pod", true);
    world.serve("pod", "local");
    world.ip(
        "node",
        &format!("route add {}/32 dev {LINK} mtu lock 1300", BEHIND[0]),
    );
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(LOCAL_POD, true)])).await;
    let what = format!("udp-sized 1340 {}", at(NODE[0], 30080));
    let answer = world.client("out", false, &what);
    assert!(answer.starts_with("at once local "), "{answer:.60}");
    assert_eq!(counter(&plane, "cut"), 1);
}
