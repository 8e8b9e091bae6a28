use proptest::prelude::*;
use seaway_kernel::{Encap, Link};

use super::*;
use crate::plan::{Findings, Settings};
use crate::testing::{link, member, plan, settings, underlay};

fn desired_with(peers: &[u8], settings: &Settings, findings: &Findings) -> Desired {
    let peers: Vec<_> = peers.iter().map(|n| member(*n)).collect();
    let mut own = member(1);
    own.pod_cidrs.truncate(1);
    plan(&own, &peers, settings, &underlay(), findings)
}

fn desired(peers: &[u8]) -> Desired {
    desired_with(peers, &settings(), &Findings::default())
}

fn device(index: u32) -> Link {
    link(index, VXLAN_LINK, 0)
}

/// What would be seen once everything was applied.
fn applied(desired: &Desired) -> Observed {
    Observed::image(desired, device(7))
}

fn text(desired: &Desired, observed: &Observed) -> String {
    diff(desired, observed)
        .iter()
        .map(|operation| format!("{operation}\n"))
        .collect()
}

#[test]
fn from_nothing() {
    expect_test::expect![[r#"
        create seaway.vxlan port 8472 address 02:53:c0:a8:00:01 mtu 1450
        set seaway.vxlan receive offload off
        set seaway.vxlan up
        sysctl net/ipv4/conf/seaway.vxlan/rp_filter=2
        sysctl net/ipv4/ip_forward=1
        add address 10.244.1.0/32
        set neighbour 10.244.2.0 lladdr 02:53:c0:a8:00:02
        set neighbour fd01:2:: lladdr 02:53:c0:a8:00:02
        set route 10.244.2.0/24 encap id 1 src 192.168.0.1 dst 192.168.0.2 via 10.244.2.0
        set route fd01:2::/64 encap id 1 src 192.168.0.1 dst 192.168.0.2 via fd01:2::
    "#]]
    .assert_eq(&text(&desired(&[2]), &Observed::default()));
}

#[test]
fn what_is_right_is_not_touched() {
    let wanted = desired(&[2, 3]);
    let mut seen = applied(&wanted);
    assert_eq!(text(&wanted, &seen), "");
    // As the kernel shows IPv6 routes.
    let routes = seen.routes.iter_mut();
    for route in routes.filter(|route| route.destination.is_ipv6()) {
        route.metric = Some(1024);
    }
    assert_eq!(text(&wanted, &seen), "");
}

#[test]
fn peers_come_go_and_move() {
    let observed = applied(&desired(&[2, 3]));
    let mut wanted = desired(&[2, 4]);
    for (destination, hop) in &mut wanted.routes {
        if destination.to_string().contains("2:") || destination.to_string().contains(".2.") {
            let encap = Encap::new(1, "192.168.0.22".parse().unwrap());
            hop.way = match hop.way {
                Way::Tunnel { gateway, .. } => Way::Tunnel { gateway, encap },
                direct @ Way::Direct { .. } => direct,
            };
        }
    }
    expect_test::expect![[r#"
        set neighbour 10.244.4.0 lladdr 02:53:c0:a8:00:04
        set neighbour fd01:4:: lladdr 02:53:c0:a8:00:04
        set route 10.244.2.0/24 encap id 1 dst 192.168.0.22 via 10.244.2.0
        set route 10.244.4.0/24 encap id 1 src 192.168.0.1 dst 192.168.0.4 via 10.244.4.0
        set route fd01:2::/64 encap id 1 dst 192.168.0.22 via fd01:2::
        set route fd01:4::/64 encap id 1 src 192.168.0.1 dst 192.168.0.4 via fd01:4::
        delete route 10.244.3.0/24 encap id 1 src 192.168.0.1 dst 192.168.0.3 via 10.244.3.0 dev #7
        delete route fd01:3::/64 encap id 1 src 192.168.0.1 dst 192.168.0.3 via fd01:3:: dev #7
        delete neighbour 10.244.3.0
        delete neighbour fd01:3::
    "#]]
    .assert_eq(&text(&wanted, &observed));
}

#[test]
fn a_device_is_changed_in_place_where_that_is_possible() {
    let wanted = desired(&[]);
    let mut observed = applied(&wanted);
    let seen = observed.device.as_mut().unwrap();
    (seen.checksum_offload, seen.receive_offload) = (false, true);
    let link = &mut seen.link;
    (link.mtu, link.mac, link.up) = (1400, None, false);
    link.master = Some(3);
    expect_test::expect![[r#"
        take seaway.vxlan out of the link that it was made a port of
        set seaway.vxlan address 02:53:c0:a8:00:01
        set seaway.vxlan mtu 1450
        set seaway.vxlan checksum offload on
        set seaway.vxlan receive offload off
        set seaway.vxlan up
    "#]]
    .assert_eq(&text(&wanted, &observed));

    let vxlan = observed.device.as_mut().unwrap();
    vxlan.vxlan.as_mut().unwrap().port = 4789;
    expect_test::expect![[r#"
        delete seaway.vxlan (not as wanted)
        create seaway.vxlan port 8472 address 02:53:c0:a8:00:01 mtu 1450
        set seaway.vxlan receive offload off
        set seaway.vxlan up
        sysctl net/ipv4/conf/seaway.vxlan/rp_filter=2
        add address 10.244.1.0/32
    "#]]
    .assert_eq(&text(&wanted, &observed));
}

#[test]
fn a_way_becomes_direct_and_narrow_in_one_step() {
    let observed = applied(&desired(&[2]));
    let settings = Settings {
        direct_routing: true,
        ..settings()
    };
    let findings = Findings {
        mtu: [("n2".into(), 1400)].into(),
        offload_broken: true,
    };
    let wanted = desired_with(&[2], &settings, &findings);
    expect_test::expect![[r#"
        set seaway.vxlan checksum offload off
        set route 10.244.2.0/24 via 192.168.0.2 dev #2 mtu 1400
        set route fd01:2::/64 encap id 1 src 192.168.0.1 dst 192.168.0.2 via fd01:2:: mtu 1400
        delete neighbour 10.244.2.0
    "#]]
    .assert_eq(&text(&wanted, &observed));
    assert_eq!(text(&wanted, &applied(&wanted)), "");
}

#[test]
fn ipv6_goes_back_into_the_tunnel_in_two_steps() {
    let wanted = desired(&[2]);
    let mut observed = applied(&wanted);
    for route in &mut observed.routes {
        let gateway = if route.destination.is_ipv4() {
            "192.168.0.2"
        } else {
            "fd00::2"
        };
        route.gateway = gateway.parse().ok();
        (route.link, route.onlink, route.encap) = (Some(2), false, None);
    }
    expect_test::expect![[r#"
        set route 10.244.2.0/24 encap id 1 src 192.168.0.1 dst 192.168.0.2 via 10.244.2.0
        delete route fd01:2::/64 via fd00::2 dev #2
        set route fd01:2::/64 encap id 1 src 192.168.0.1 dst 192.168.0.2 via fd01:2::
    "#]]
    .assert_eq(&text(&wanted, &observed));
}

/// A kernel in a few lines: what the operations do to what is seen. IPv6 deletes a route without looking at its
/// encapsulation (`ip6_route_del` in net/ipv6/route.c).
fn carried_out(observed: &Observed, operations: &[Operation]) -> Observed {
    let mut seen = observed.clone();
    for operation in operations {
        match operation {
            Operation::SetNeighbour(address, mac) => {
                seen.neighbours.retain(|n| n.address != *address);
                seen.neighbours.push(seaway_kernel::Neighbour {
                    link: 7,
                    address: *address,
                    mac: Some(*mac),
                    permanent: true,
                });
            }
            Operation::DeleteNeighbour(address) => {
                seen.neighbours.retain(|n| n.address != *address);
            }
            Operation::SetRoute(destination, hop) => {
                let route = hop.route(*destination, 7);
                seen.routes
                    .retain(|r| r.destination != *destination || metric(r) != metric(&route));
                seen.routes.push(route);
            }
            Operation::DeleteRoute(gone) => {
                let by_key = |r: &Route| {
                    r.destination == gone.destination
                        && r.gateway == gone.gateway
                        && r.link == gone.link
                        && metric(r) == metric(gone)
                        && (gone.destination.is_ipv6() || r.encap == gone.encap)
                };
                let first = seen.routes.iter().position(by_key);
                first.map(|index| seen.routes.remove(index));
            }
            Operation::SetOffload(on) => {
                seen.device.as_mut().unwrap().checksum_offload = *on;
            }
            Operation::SetReceiveOffload(_)
            | Operation::Detach
            | Operation::SetMac(_)
            | Operation::SetMtu(_)
            | Operation::SetUp
            | Operation::AddAddress(_)
            | Operation::DeleteAddress(_)
            | Operation::Setting { .. }
            | Operation::CreateDevice(_)
            | Operation::DeleteDevice => unreachable!("{operation}"),
        }
    }
    seen
}

fn cluster() -> impl Strategy<Value = Desired> {
    let peers = proptest::collection::btree_set(2u8..9, 0..6);
    let narrow = proptest::collection::btree_set(2u8..9, 0..3);
    (peers, any::<bool>(), 1u32..3, narrow, any::<bool>()).prop_map(
        |(peers, direct_routing, vni, narrow, offload_broken)| {
            let settings = Settings {
                direct_routing,
                vni,
                ..settings()
            };
            let findings = Findings {
                mtu: narrow
                    .into_iter()
                    .map(|n| (format!("n{n}").into(), 1300 + u32::from(n)))
                    .collect(),
                offload_broken,
            };
            let peers: Vec<_> = peers.into_iter().collect();
            desired_with(&peers, &settings, &findings)
        },
    )
}

proptest! {
    /// From any mesh to any other, in one go, and no operation concerns a peer that both have alike.
    #[test]
    fn one_comparison_is_enough_and_leaves_other_peers_alone(
        before in cluster(), after in cluster(),
        strays in proptest::collection::vec((20u8..30, any::<bool>()), 0..4),
    ) {
        let mut seen = applied(&before);
        for (number, v6) in strays {
            let text = if v6 { format!("fd01:{number}::/64") } else { format!("10.244.{number}.0/24") };
            let destination: IpNetwork = text.parse().unwrap();
            let encap = Encap::new(1, "192.168.0.99".parse().unwrap());
            let way = Way::Tunnel { gateway: destination.ip(), encap };
            let route = Hop { way, mtu: None }.route(destination, 7);
            if !seen.routes.contains(&route) {
                seen.routes.push(route);
            }
        }
        let operations = diff(&after, &seen);
        for operation in &operations {
            if let Operation::SetRoute(destination, hop) = operation {
                prop_assert_ne!(before.routes.get(destination), Some(hop));
            }
        }
        let mended = carried_out(&seen, &operations);
        prop_assert_eq!(diff(&after, &mended), []);
        let mut routes = mended.routes;
        routes.sort();
        let mut wanted = applied(&after).routes;
        wanted.sort();
        prop_assert_eq!(routes, wanted);
    }
}
