//! The eBPF data plane against the running kernel; needs root. Each test works in namespaces, a cgroup and a directory of
//! pins that it makes for itself.

#![allow(clippy::unwrap_used)]

mod aside;
mod cost;
mod direct;
mod dsr;
mod dsr_semantics;
mod foreign;
mod growth;
mod handover;
mod ipv6;
mod lifecycle;
mod maglev;
mod observed;
mod packets;
mod pods;
mod pods_tunnel;
mod semantics;
mod sizes;
mod sockets;
mod traffic;
mod unframed;
mod upgrade;
mod ways;
mod world;
mod xdp;

/// Not a test: what the others start as a client process.
#[test]
fn client() {
    world::run_client();
}
