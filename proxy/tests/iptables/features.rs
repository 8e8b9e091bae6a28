//! Settings and features one by one, with packets of both families through two pods' and an outside link.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;
use seaway_model::{Change, DetectLocal, Family, Protocol, TrafficPolicy};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::iptables::IptablesConfig;

use crate::machine::{pod, web};
use crate::world::{Answer, FAMILIES, World, cluster_ip, in_each_world, node_address, web_with};

fn outside(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 168, 77, 200].into(),
        Family::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, 0xc8].into(),
    }
}

/// Whom the pod saw that served a request.
fn seen(world: &World, client: &str, to: &str) -> IpAddr {
    match world.ask(client, to, Protocol::Tcp) {
        Answer::Served { peer, .. } => peer,
        other => panic!("{client} -> {to}: {other:?}"),
    }
}

#[test]
fn sources_are_kept_and_replaced_in_both_families_and_protocols() {
    in_each_world(|machine, world| async move {
        world.add_default_routes();
        machine.with(&web_with(&[2], |_| {})).await;
        for family in FAMILIES {
            let served = Answer::Served {
                by: pod(family, 2),
                peer: pod(family, 3),
            };
            let cluster_ip = cluster_ip(family, 10, 80);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(world.ask("pod3", &cluster_ip, protocol), served);
                // The endpoint itself, and a client outside: the node stands in for them.
                for (client, own) in [("pod2", pod(family, 2)), ("out", outside(family))] {
                    let Answer::Served { peer, .. } = world.ask(client, &cluster_ip, protocol)
                    else {
                        panic!("{client} is not served")
                    };
                    assert_ne!(peer, own, "{client}/{protocol}");
                }
                let node_port = node_address(family, false, 30_080);
                let Answer::Served { peer, .. } = world.ask("out", &node_port, protocol) else {
                    panic!("node port is not served")
                };
                assert_ne!(peer, outside(family));
            }
        }
    });
}

#[test]
fn external_policy_local_keeps_the_client() {
    in_each_world(|machine, world| async move {
        let local = |s: &mut seaway_model::Service| s.external_policy = TrafficPolicy::Local;
        machine.with(&web_with(&[2], local)).await;
        for family in FAMILIES {
            let node_port = node_address(family, false, 30_080);
            assert_eq!(seen(&world, "out", &node_port), outside(family));
            assert_eq!(seen(&world, "pod3", &node_port), pod(family, 3));
        }
    });
}

#[test]
fn node_ports_are_served_on_the_addresses_of_the_operators_choice() {
    in_each_world(|machine, world| async move {
        let ranges = ["192.168.78.0/24", "fd78::/64"].map(|r| r.parse().unwrap());
        let config = IptablesConfig {
            node_port_addresses: Some(ranges.to_vec()),
            ..IptablesConfig::default()
        };
        let dataplane = machine.dataplane_for(&config);
        machine.bring_up(dataplane, &web_with(&[2], |_| {})).await;
        for family in FAMILIES {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let chosen = node_address(family, true, 30_080);
                let answer = world.ask("out", &chosen, protocol);
                assert!(
                    matches!(answer, Answer::Served { .. }),
                    "{chosen}: {answer:?}"
                );
                // Not ours: nobody listens there, says the node itself.
                let other = node_address(family, false, 30_080);
                assert_eq!(world.ask("out", &other, protocol), Answer::Refused);
            }
        }
        // An address that the node gets later counts.
        world.ip("node", "address add 192.168.78.2/32 dev eth0");
        assert_eq!(
            world.servers("out", "192.168.78.2:30080", 1),
            [pod(Family::V4, 2)]
        );
    });
}

#[test]
fn pods_are_known_by_the_mode_of_the_operators_choice() {
    in_each_world(|machine, world| async move {
        world.add_default_routes();
        let cidrs = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        // The mode, and whether pod 3 and the outside client keep their address on the way to a cluster IP.
        let modes = [
            (
                DetectLocal::ClusterCidr(cidrs(&["10.244.0.0/16", "fd00:10:244::/56"])),
                true,
                false,
            ),
            (
                DetectLocal::NodeCidr(cidrs(&["10.244.1.0/24", "fd00:10:244::/64"])),
                true,
                false,
            ),
            (DetectLocal::InterfaceNamePrefix("sw".into()), true, false),
            (
                DetectLocal::BridgeInterface("sw00000000003".into()),
                true,
                false,
            ),
            (DetectLocal::BridgeInterface("cni0".into()), false, false),
            (DetectLocal::None, true, true),
        ];
        for (detect_local, pod_kept, outside_kept) in modes {
            let config = IptablesConfig {
                detect_local: detect_local.clone(),
                ..IptablesConfig::default()
            };
            let dataplane = machine.dataplane_for(&config);
            machine.bring_up(dataplane, &web_with(&[2], |_| {})).await;
            for family in FAMILIES {
                let to = cluster_ip(family, 10, 80);
                let kept = seen(&world, "pod3", &to) == pod(family, 3);
                assert_eq!(kept, pod_kept, "pod, {detect_local:?}");
                let kept = seen(&world, "out", &to) == outside(family);
                assert_eq!(kept, outside_kept, "outside, {detect_local:?}");
            }
        }
    });
}

#[test]
fn a_client_stays_with_its_endpoint_until_that_goes() {
    in_each_world(|machine, world| async move {
        let sticky = |s: &mut seaway_model::Service| {
            s.affinity = Some(Duration::from_secs(60));
        };
        let mut dataplane = machine.with(&web_with(&[2, 3], sticky)).await;
        for family in FAMILIES {
            let change = Change::Full;
            let to = cluster_ip(family, 10, 80);
            let first = world.servers("out", &to, 12);
            assert_eq!(first.len(), 1, "{first:?}");
            // The node port is the same Service: the same endpoint.
            let node_port = node_address(family, false, 30_080);
            assert_eq!(world.servers("out", &node_port, 6), first);

            // It goes: the client is sent to the other one, and stays there when the first comes back.
            let other = if first[0] == pod(family, 2) { 3 } else { 2 };
            let plan = dataplane.plan(&web_with(&[other], sticky), &web());
            dataplane.apply(plan).await.unwrap();
            assert_eq!(world.servers("out", &to, 4), [pod(family, other)]);
            let plan = dataplane.plan(&web_with(&[2, 3], sticky), &web());
            dataplane.apply(plan).await.unwrap();
            assert_eq!(world.servers("out", &to, 12), [pod(family, other)]);

            // Without affinity both answer.
            let plan = dataplane.plan(&web_with(&[2, 3], |_| {}), &web());
            dataplane.apply(plan).await.unwrap();
            assert_eq!(world.servers("out", &to, 40).len(), 2);
            let plan = dataplane.plan(&web_with(&[2, 3], sticky), &change);
            dataplane.apply(plan).await.unwrap();
        }
    });
}

#[test]
fn affinity_ends_with_its_time() {
    in_each_world(|machine, world| async move {
        let sticky = |s: &mut seaway_model::Service| s.affinity = Some(Duration::from_secs(1));
        machine.with(&web_with(&[2, 3], sticky)).await;
        let to = cluster_ip(Family::V4, 10, 80);
        let mut servers = BTreeSet::new();
        for _ in 0..12 {
            servers.extend(world.servers("out", &to, 2));
            if servers.len() == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2100)).await;
        }
        panic!("always the same endpoint: {servers:?}");
    });
}

#[test]
fn counters_outlive_the_changes_of_others() {
    in_each_world(|machine, world| async move {
        let mut dataplane = machine.with(&web_with(&[2], |_| {})).await;
        let to = cluster_ip(Family::V4, 10, 80);
        world.servers("out", &to, 5);
        let packets = || {
            let program = crate::machine::program(Family::V4, machine.variant_of("nat"));
            let saved = crate::machine::run(&format!("{program}-save"), &["-c"], "");
            let line = saved
                .lines()
                .find(|line| line.contains("-p tcp") && line.contains("10.244.1.2:8080"))
                .unwrap()
                .to_owned();
            line.trim_start_matches('[')
                .split(':')
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        assert_eq!(packets(), 5);
        // Another Service comes and goes; then a full sync that finds nothing to do, then a restart.
        let mut both = web_with(&[2], |_| {});
        let other = crate::machine::service_with(&[2]);
        let key = seaway_model::ObjectKey::new("default", "other");
        both.services
            .insert(key.clone(), other.services[&key].clone());
        for desired in [&both, &web_with(&[2], |_| {})] {
            let change = Change::Services(BTreeSet::from([key.clone()]));
            let plan = dataplane.plan(desired, &change);
            dataplane.apply(plan).await.unwrap();
            assert_eq!(packets(), 5);
        }
        machine.with(&web_with(&[2], |_| {})).await;
        assert_eq!(packets(), 5);
    });
}

#[test]
fn forwarded_packets_that_belong_to_no_connection_are_dropped() {
    in_each_world(|machine, world| async move {
        for (drop_invalid, expected) in [(true, 1), (false, 0)] {
            let config = IptablesConfig {
                drop_invalid,
                ..IptablesConfig::default()
            };
            let dataplane = machine.dataplane_for(&config);
            machine.bring_up(dataplane, &web_with(&[2], |_| {})).await;
            let saved = machine.saved(Family::V4).join("\n");
            assert_eq!(saved.matches("--ctstate INVALID -j DROP").count(), expected);
            // A pod is reached from outside by its own address, before and after.
            let to = format!("{}:8080", pod(Family::V4, 2));
            world.ip("out", "route replace 10.244.1.0/24 via 192.168.77.1");
            assert_eq!(seen(&world, "out", &to), outside(Family::V4));
            assert_eq!(stray_reset_arrives(&world), !drop_invalid);
        }
    });
}

/// Whether a reset from a pod that belongs to no connection gets to the client outside: with the pod's own address as
/// its source, as nothing translates it.
fn stray_reset_arrives(world: &World) -> bool {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (pod(Family::V4, 2), outside(Family::V4)) else {
        panic!("not IPv4");
    };
    let raw = |protocol| {
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Inet, SockType::Raw, flags, protocol).unwrap()
    };
    let ear = world.netns("out").run(|| raw(SockProtocol::Tcp)).unwrap();
    setsockopt(&ear, ReceiveTimeout, &TimeVal::new(0, 700_000)).unwrap();
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        .tcp(8080, 40_000, 1, 0)
        .rst()
        .write(&mut packet, &[])
        .unwrap();
    let mouth = world.netns("pod2").run(|| raw(SockProtocol::Raw)).unwrap();
    let to = SockaddrStorage::from(SocketAddr::new(to.into(), 0));
    sendto(mouth.as_raw_fd(), &packet, &to, MsgFlags::empty()).unwrap();
    let mut buffer = [0; 256];
    while let Ok(length) = recv(ear.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        let heard = SlicedPacket::from_ip(&buffer[..length]).unwrap();
        if let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
            (&heard.net, &heard.transport)
            && tcp.rst()
            && tcp.destination_port() == 40_000
        {
            return ip.header().source_addr() == from;
        }
    }
    false
}
