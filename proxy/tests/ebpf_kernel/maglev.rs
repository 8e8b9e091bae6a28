//! The backend that the loaded program picks is the one that the host computes, and so the one that any other node picks.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use seaway_ebpf_abi::{FrontendKey, TCP};
use seaway_ebpf_logic::spread;
use seaway_model::maglev::{DEFAULT_SEED, table};
use seaway_model::{Algorithm, Desired};

use crate::packets::{Bench, REDIRECT, SYN, shape};
use crate::world::{CLUSTER_IP, NODE_IP, World, service, sync};

const BACKENDS: [&str; 5] = [
    "10.244.1.5",
    "10.244.2.5",
    "10.244.2.6",
    "10.244.2.7",
    "10.244.2.8",
];

fn by_maglev(backends: &[&str]) -> Desired {
    let places: Vec<(&str, bool)> = backends
        .iter()
        .map(|ip| (*ip, ip.starts_with("10.244.1.")))
        .collect();
    let mut desired = service(&places);
    for rules in desired.services.values_mut() {
        rules.algorithm = Algorithm::Maglev;
    }
    desired
}

/// What the host says: from the addresses alone.
fn expected(backends: &[&str], client: (&str, u16), frontend: FrontendKey) -> Ipv4Addr {
    let addrs: Vec<SocketAddr> = backends
        .iter()
        .map(|ip| SocketAddr::new(ip.parse().unwrap(), 8080))
        .collect();
    let source: std::net::IpAddr = client.0.parse().unwrap();
    let hash = spread::hash(&source.into(), client.1.to_be(), &frontend, DEFAULT_SEED);
    let table = table(&addrs, DEFAULT_SEED).unwrap();
    let index = table[spread::entry(hash) as usize];
    backends[usize::from(index)].parse().unwrap()
}

/// A node port stands in the map, and counts for the hash, without the node's address.
fn node_port() -> FrontendKey {
    FrontendKey {
        addr: seaway_ebpf_abi::Addr::ANY_V4,
        port: 30_080_u16.to_be(),
        protocol: TCP,
        pad: 0,
    }
}

fn cluster_ip() -> FrontendKey {
    let ip: std::net::IpAddr = CLUSTER_IP.parse().unwrap();
    FrontendKey {
        addr: ip.into(),
        port: 80_u16.to_be(),
        ..node_port()
    }
}

#[tokio::test]
async fn the_program_picks_what_the_host_computes() {
    let mut bench = Bench::new(&by_maglev(&BACKENDS)).await;
    let mut seen = BTreeSet::new();
    for port in 40_000..40_064 {
        for (program, source, to, frontend) in [
            (
                "from_uplink",
                "192.168.77.200",
                (NODE_IP, 30080),
                node_port(),
            ),
            ("from_pod", "10.244.1.5", (CLUSTER_IP, 80), cluster_ip()),
        ] {
            let packet = shape((source, port), to, Some(SYN));
            let (_, out) = bench.run(program, packet);
            let backend = expected(&BACKENDS, (source, port), frontend);
            assert_eq!((out.dst, out.dport), (backend, 8080), "{source}:{port}");
            seen.insert(backend);
        }
    }
    assert_eq!(seen.len(), BACKENDS.len(), "every backend has its share");
    assert_eq!(bench.counter("slot_missing"), 0);
}

/// An endpoint that goes takes only its own clients along. New connections of the others, from ports that they used before,
/// go where they went.
#[tokio::test]
async fn a_change_moves_few() {
    let mut bench = Bench::new(&by_maglev(&BACKENDS)).await;
    let left = &BACKENDS[..4];
    sync(&mut bench.plane, &by_maglev(left)).await;
    let mut moved = 0;
    for port in 41_000..41_128 {
        let source = "192.168.77.200";
        let (code, out) = bench.run(
            "from_uplink",
            shape((source, port), (NODE_IP, 30080), Some(SYN)),
        );
        let before = expected(&BACKENDS, (source, port), node_port());
        let now = expected(left, (source, port), node_port());
        assert_eq!((code, out.dst), (REDIRECT, now), "{port}");
        moved += usize::from(before != now && before.to_string() != BACKENDS[4]);
    }
    assert!(
        moved <= 8,
        "{moved} of 128 clients of other endpoints moved"
    );
}

/// A client that stays with its backend gets the same one whichever port it comes from, so that another node agrees even
/// though it has not seen the client before.
#[tokio::test]
async fn affinity_goes_by_the_client_alone() {
    let mut desired = by_maglev(&BACKENDS);
    for rules in desired.services.values_mut() {
        for port in &mut rules.ports {
            port.affinity = Some(Duration::from_secs(60));
        }
    }
    let mut bench = Bench::new(&desired).await;
    for client in 1..20 {
        let source = format!("203.0.113.{client}");
        for port in [1000, 2000] {
            let packet = shape((&source, port), (NODE_IP, 30080), Some(SYN));
            let (_, out) = bench.run("from_uplink", packet);
            assert_eq!(out.dst, expected(&BACKENDS, (&source, 0), node_port()));
        }
    }
}

/// Sockets have no port yet when they connect: each connection gets any backend of the set.
#[tokio::test]
async fn sockets_are_served_at_random() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &by_maglev(&["10.244.1.5", "10.244.2.5"])).await;
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let answer = world.client("node", true, &format!("tcp {CLUSTER_IP}:80"));
        seen.insert(answer.split(' ').next().unwrap_or_default().to_owned());
        if seen.len() == 2 {
            break;
        }
    }
    assert_eq!(
        seen,
        BTreeSet::from(["local".to_owned(), "remote".to_owned()])
    );
}
