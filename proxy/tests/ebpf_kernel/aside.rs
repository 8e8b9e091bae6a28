//! A pod with a sidecar: its sockets keep the addresses that they ask for.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use seaway_proxy::ebpf::Aside;
use tokio::sync::watch;

use crate::world::{
    CLUSTER_IP, CLUSTER_IP6, LOCAL_POD, LOCAL_POD6, REMOTE_POD, REMOTE_POD6, World, service, sync,
};

/// A busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the sidecar listens.
const PORT: u16 = 15_001;

/// Answers each connection by the address that it was meant for.
fn serve_sidecar(world: &World, v6: bool) {
    let listener = world
        .netns("pod")
        .run(|| {
            let any = if v6 { "[::]" } else { "0.0.0.0" };
            TcpListener::bind(format!("{any}:{PORT}")).unwrap()
        })
        .unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let meant: SocketAddr = if v6 {
                let raw = getsockopt(&stream, sockopt::Ip6tOriginalDst).unwrap();
                let addr = raw.sin6_addr.s6_addr;
                SocketAddr::new(addr.into(), u16::from_be(raw.sin6_port))
            } else {
                let raw = getsockopt(&stream, sockopt::OriginalDst).unwrap();
                let addr = raw.sin_addr.s_addr.to_ne_bytes();
                SocketAddr::new(addr.into(), u16::from_be(raw.sin_port))
            };
            let _ = writeln!(stream, "sidecar {meant}");
        }
    });
}

fn rule(world: &World, program: &str, words: &str) {
    let pod = world.netns("pod");
    let status = Command::new("nsenter")
        .arg(format!("--net={}", pod.path().unwrap().display()))
        .args([program, "-t", "nat"])
        .args(words.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "{program} {words}");
}

/// Asks until the answer begins so.
fn wait_for(world: &World, what: &str, expected: &str) {
    let started = Instant::now();
    loop {
        let answer = world.client("pod", true, what);
        if answer.starts_with(expected) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{answer}");
    }
}

async fn keeps_what_it_asks_for(v6: bool, program: &str) {
    let (cluster_ip, own, backend) = match v6 {
        false => (CLUSTER_IP.to_owned(), LOCAL_POD, REMOTE_POD),
        true => (format!("[{CLUSTER_IP6}]"), LOCAL_POD6, REMOTE_POD6),
    };
    let world = World::new();
    world.serve("peerpod", "remote");
    serve_sidecar(&world, v6);
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(backend, false)])).await;
    let ask = format!("tcp {cluster_ip}:80");

    let redirect = format!("OUTPUT -p tcp --dport 1:15000 -j REDIRECT --to-ports {PORT}");
    rule(&world, program, &format!("-A {redirect}"));
    // A socket that is translated hides from the sidecar what was meant.
    let backend = SocketAddr::new(backend.parse().unwrap(), 8080);
    wait_for(&world, &ask, &format!("sidecar {backend}"));
    let _aside = {
        let node = world.netns("node");
        let _inside = node.enter().unwrap();
        Aside::start(&world.bpffs, watch::channel(BTreeSet::new()).1).unwrap()
    };
    wait_for(&world, &ask, &format!("sidecar {cluster_ip}:80"));
    // What the sidecar does not take is served by packets.
    let answer = world.client("pod", true, &format!("udp {cluster_ip}:80"));
    let own = SocketAddr::new(own.parse().unwrap(), 0).to_string();
    let own = own.trim_end_matches('0');
    assert!(answer.starts_with(&format!("remote {own}")), "{answer}");

    rule(&world, program, &format!("-D {redirect}"));
    wait_for(&world, &ask, "remote");
    rule(&world, program, &format!("-A {redirect}"));
    wait_for(&world, &ask, &format!("sidecar {cluster_ip}:80"));
}

async fn is_served_by_packets(v6: bool) {
    let (cluster_ip, own, others) = match v6 {
        false => (CLUSTER_IP.to_owned(), LOCAL_POD, [REMOTE_POD, LOCAL_POD6]),
        true => (
            format!("[{CLUSTER_IP6}]"),
            LOCAL_POD6,
            [REMOTE_POD6, LOCAL_POD],
        ),
    };
    let [backend, own_of_other_family] = others;
    let world = World::new();
    world.serve("peerpod", "remote");
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(backend, false)])).await;
    let (tell, labelled) = watch::channel(BTreeSet::new());
    let _aside = {
        let node = world.netns("node");
        let _inside = node.enter().unwrap();
        Aside::start(&world.bpffs, labelled).unwrap()
    };
    // How many connections hooks and packets' programs have translated after one more, which the backend sees to come from
    // the pod, and the pod to come from the Service.
    let ask = || {
        let answer = world.client("pod", true, &format!("tcp {cluster_ip}:80"));
        let seen = SocketAddr::new(own.parse().unwrap(), 0).to_string();
        let seen = format!("remote {}", seen.trim_end_matches('0'));
        assert!(answer.starts_with(&seen), "{answer}");
        assert!(
            answer.ends_with(&format!("from {cluster_ip}:80")),
            "{answer}"
        );
        let counters = plane.counters().unwrap();
        let count = |label| {
            let mut found = counters.iter().filter(|(v, _)| v.label() == label);
            found.next().unwrap().1
        };
        (count("socket_connect"), count("new_flow"))
    };
    let mut before = ask();
    for (addresses, by_packets) in [
        (&[own][..], true),
        (&[backend], false),
        (&[own_of_other_family], true),
        (&[], false),
    ] {
        tell.send_replace(addresses.iter().map(|ip| ip.parse().unwrap()).collect());
        let started = Instant::now();
        loop {
            let after = ask();
            let new = (after.0 - before.0, after.1 - before.1);
            before = after;
            if new == (u64::from(!by_packets), u64::from(by_packets)) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{addresses:?}: {new:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_the_label_is_served_by_packets() {
    is_served_by_packets(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_one_over_ipv6() {
    is_served_by_packets(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_a_sidecar_keeps_what_it_asks_for() {
    keeps_what_it_asks_for(false, "iptables-legacy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_over_ipv6_with_rules_of_nf_tables() {
    keeps_what_it_asks_for(true, "ip6tables-nft").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_may_write_its_rules_by_either_program() {
    keeps_what_it_asks_for(false, "iptables-nft").await;
    keeps_what_it_asks_for(true, "ip6tables-legacy").await;
}
