//! Real packets through the rules: one namespace is node, pods and client at once.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
use seaway_kernel::NetNs;
use seaway_model::{Change, Desired, Family, InputEvent, Inputs, ObjectKey, testing};
use seaway_proxy::dataplane::Dataplane;

use crate::machine::{in_each_variant, pod, run, service_events, service_with, web};

/// Addresses on loopback, so that one namespace is node, pods and client at once.
fn addresses() {
    let ip = |text: &str| run("ip", &text.split(' ').collect::<Vec<_>>(), "");
    ip("addr add 192.168.1.1/32 dev lo");
    // Usable at once: the kernel looks for duplicates of IPv6 addresses first, even here.
    ip("-6 addr add fd01::1/128 dev lo nodad");
    for host in [2, 3] {
        ip(&format!("addr add {} dev lo", pod(Family::V4, host)));
        ip(&format!("addr add {} dev lo nodad", pod(Family::V6, host)));
    }
    NetNs::current().unwrap().await_ready().unwrap();
    ip("route add 10.96.0.0/16 dev lo src 192.168.1.1");
    ip("-6 route add fd00:10:96::/112 dev lo src fd01::1");
}

/// Answers each connection with its own address and that of its peer.
fn serve(addr: SocketAddr) {
    let listener = TcpListener::bind(addr).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap();
            write!(stream, "{addr} {peer}").unwrap();
        }
    });
}

/// A connection that was answered.
#[derive(Debug)]
struct Answer {
    server: SocketAddr,
    /// Whom the server saw.
    peer: SocketAddr,
    /// Who asked.
    client: SocketAddr,
}

fn ask(source: Option<IpAddr>, destination: SocketAddr) -> std::io::Result<Answer> {
    let mut stream = connect(source, destination)?;
    let client = stream.local_addr()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (server, peer) = answer.split_once(' ').unwrap();
    Ok(Answer {
        server: server.parse().unwrap(),
        peer: peer.parse().unwrap(),
        client,
    })
}

fn connect(source: Option<IpAddr>, destination: SocketAddr) -> std::io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect_timeout(&destination, Duration::from_secs(5));
    };
    let family = match source {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let source = SockaddrStorage::from(SocketAddr::new(source, 0));
    bind(fd.as_raw_fd(), &source)?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(destination))?;
    Ok(TcpStream::from(fd))
}

#[test]
fn packets_do_what_the_rules_say() {
    in_each_variant(|machine| async move {
        addresses();
        for family in [Family::V4, Family::V6] {
            for host in [2, 3] {
                serve(SocketAddr::new(pod(family, host), 8080));
            }
        }
        let loopback = "127.0.0.1:30080".parse().unwrap();
        serve(loopback);
        let mut dataplane = machine.with(&service_with(&[2, 3])).await;
        let cluster_ips = ["10.96.0.10:80", "[fd00:10:96::a]:80"].map(|a| a.parse().unwrap());
        let node_ports = ["192.168.1.1:30080", "[fd01::1]:30080"].map(|a| a.parse().unwrap());
        for destination in cluster_ips.into_iter().chain(node_ports) {
            let servers: BTreeSet<_> = (0..40)
                .map(|_| ask(None, destination).unwrap().server)
                .collect();
            assert_eq!(servers.len(), 2, "{destination}: {servers:?}");
        }
        // Loopback is not a node port: what listens there is reached.
        assert_eq!(ask(None, loopback).unwrap().server, loopback);

        // A pod keeps its address. One that reaches itself sees another port at least: here all addresses are on one
        // link, so that masquerade finds the same one.
        let plan = dataplane.plan(&service_with(&[2]), &web());
        dataplane.apply(plan).await.unwrap();
        for (family, cluster_ip) in [Family::V4, Family::V6].into_iter().zip(cluster_ips) {
            let other = ask(Some(pod(family, 3)), cluster_ip).unwrap();
            assert_eq!(other.peer, other.client);
            let hairpin = ask(Some(pod(family, 2)), cluster_ip).unwrap();
            assert_eq!(hairpin.server.ip(), hairpin.client.ip());
            assert_ne!(hairpin.peer, hairpin.client);
        }

        // Refused at once without endpoints, on every kind of frontend; and served again.
        let plan = dataplane.plan(&service_with(&[]), &web());
        dataplane.apply(plan).await.unwrap();
        for destination in cluster_ips.into_iter().chain(node_ports) {
            let started = Instant::now();
            let refused = ask(None, destination).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            assert!(started.elapsed() < Duration::from_millis(500));
        }
        let plan = dataplane.plan(&service_with(&[3]), &web());
        dataplane.apply(plan).await.unwrap();
        for (family, cluster_ip) in [Family::V4, Family::V6].into_iter().zip(cluster_ips) {
            assert_eq!(ask(None, cluster_ip).unwrap().server.ip(), pod(family, 3));
        }
    });
}

/// Two Services claim one cluster IP and node port: the one with the smaller name has them, in whatever order they
/// come; when it goes the other takes over.
#[test]
fn of_two_services_at_one_frontend_the_smaller_key_serves() {
    in_each_variant(|machine| async move {
        addresses();
        for family in [Family::V4, Family::V6] {
            for host in [2, 3] {
                serve(SocketAddr::new(pod(family, host), 8080));
            }
        }
        let frontends = [
            "10.96.0.10:80",
            "[fd00:10:96::a]:80",
            "192.168.1.1:30080",
            "[fd01::1]:30080",
        ];
        let served_by = |host: u8| {
            for frontend in frontends {
                let destination: SocketAddr = frontend.parse().unwrap();
                let servers: BTreeSet<_> = (0..10)
                    .map(|_| ask(None, destination).unwrap().server.ip())
                    .collect();
                let family = Family::of(destination.ip());
                assert_eq!(servers, BTreeSet::from([pod(family, host)]), "{frontend}");
            }
        };
        let refused = || {
            for frontend in frontends {
                let refused = ask(None, frontend.parse().unwrap()).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{frontend}");
            }
        };
        let mut dataplane = machine.with(&Desired::default()).await;
        let (mut inputs, mut desired) = (Inputs::default(), Desired::default());
        let mut changes: Vec<Vec<InputEvent>> = Vec::new();
        // b is there first, then a; a without endpoints keeps b out; a goes, comes back, and b goes.
        changes.push(service_events("b", 10, &[3]).into());
        changes.push(service_events("a", 10, &[2]).into());
        changes.push(service_events("a", 10, &[]).into());
        changes.push(vec![InputEvent::Service(
            ObjectKey::new("default", "a"),
            None,
        )]);
        changes.push(service_events("a", 10, &[2]).into());
        changes.push(vec![InputEvent::Service(
            ObjectKey::new("default", "b"),
            None,
        )]);
        for (i, events) in changes.into_iter().enumerate() {
            let mut touched = BTreeSet::new();
            for event in events {
                touched.extend(inputs.apply(event));
            }
            desired.update(&inputs, &touched, &testing::settings());
            let plan = dataplane.plan(&desired, &Change::Services(touched));
            dataplane.apply(plan).await.unwrap();
            match i {
                0 | 3 => served_by(3),
                2 => refused(),
                _ => served_by(2),
            }
        }
    });
}
