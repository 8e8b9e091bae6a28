//! How pods of other nodes are reached: where the overlay's routes lead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use seaway_ebpf_abi::pod::PEERS_LEN;
use seaway_ebpf_abi::{Addr, PeerValue, TunnelKey};
use seaway_kernel::{Link, MacAddr, Route};

use super::{ethernet, mtu};
use crate::ebpf::tunnels;

/// Nodes by the pods behind them.
pub(super) type Peers = BTreeMap<TunnelKey, PeerValue>;

/// The network of a key: its address, and the length of its prefix in that family.
pub(super) fn network(key: &TunnelKey) -> (IpAddr, u8) {
    let prefix = match key.addr.is_v4() {
        true => key.prefix.saturating_sub(96),
        false => key.prefix,
    };
    (key.addr.ip(), prefix.min(128) as u8)
}

/// By all routes of the node, and by the permanent neighbours of the overlay's device; `port` is that of
/// [`tunnels::port_for_programs`]. What the overlay does not lead to alone is left to
/// the stack.
pub(super) fn peers(
    overlay: &Link,
    port: u16,
    routes: &[Route],
    neighbours: &BTreeMap<IpAddr, MacAddr>,
) -> Peers {
    let nodes = tunnels::of_routes(routes, overlay).nodes;
    let reached = |route: &Route| {
        let encap = route
            .encap
            .filter(|encap| nodes.get(&route.destination) == Some(&encap.remote))?;
        let theirs = neighbours.get(&route.gateway?)?;
        let of_route = route.mtu.and_then(|mtu| u16::try_from(mtu).ok());
        let value = PeerValue {
            remote: encap.remote.into(),
            local: encap.source.map_or(Addr::ANY_V6, Addr::from),
            vni: u32::try_from(encap.id).ok()?,
            mtu: mtu(overlay).min(of_route.unwrap_or(u16::MAX)),
            port: port.to_be(),
            ethernet: ethernet(*theirs, overlay.mac?),
        };
        Some((tunnels::key(&route.destination), value))
    };
    let found = routes.iter().filter_map(reached).take(PEERS_LEN as usize);
    let mut peers: Peers = found.collect();
    let lengths = lengths(&peers);
    let elsewhere: Vec<TunnelKey> = routes
        .iter()
        .map(|route| tunnels::key(&route.destination))
        .filter(|key| !peers.contains_key(key) && is_within(key, &peers, &lengths))
        .collect();
    for key in elsewhere {
        // Nothing fits: a packet for there is left to the stack.
        peers.insert(key, PeerValue::default());
    }
    peers
}

/// Whether a route concerns what is reached by the overlay, though it does not lead there.
pub(super) fn concerns(route: &Route, peers: &Peers) -> bool {
    is_within(&tunnels::key(&route.destination), peers, &lengths(peers))
}

fn lengths(peers: &Peers) -> BTreeSet<u32> {
    peers.keys().map(|key| key.prefix).collect()
}

/// Whether a network is part of one of theirs, or one of theirs itself.
fn is_within(key: &TunnelKey, peers: &Peers, lengths: &BTreeSet<u32>) -> bool {
    let mut shorter = lengths.range(..=key.prefix);
    shorter.any(|prefix| peers.contains_key(&cut(key, *prefix)))
}

/// The network of that length that this one is in.
fn cut(key: &TunnelKey, prefix: u32) -> TunnelKey {
    let mut addr = key.addr;
    for (word, before) in addr.words.iter_mut().zip([0, 32, 64, 96]) {
        let bits = prefix.saturating_sub(before).min(32);
        *word &= u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be();
    }
    TunnelKey { prefix, addr }
}

#[cfg(test)]
mod tests {
    use seaway_kernel::{Encap, LinkKind, VxlanSettings};

    use super::*;

    const OVERLAY: u32 = 3;
    const UPLINK: u32 = 2;
    const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
    const OURS: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);

    fn overlay() -> Link {
        Link {
            index: OVERLAY,
            name: "seaway.vxlan".to_owned(),
            kind: LinkKind::Vxlan(VxlanSettings {
                external: true,
                port: 8472,
                learning: false,
                vni: 0,
                lower: None,
            }),
            mtu: 1450,
            mac: Some(OURS),
            up: true,
            running: true,
            master: None,
            peer: None,
            framing: seaway_kernel::Framing::Ethernet,
            peer_netns: None,
        }
    }

    fn to(destination: &str, link: u32) -> Route {
        Route {
            link: Some(link),
            ..Route::new(destination.parse().unwrap(), 83)
        }
    }

    fn over(destination: &str, gateway: &str) -> Route {
        Route {
            gateway: Some(gateway.parse().unwrap()),
            encap: Some(Encap::new(5, "192.168.77.2".parse().unwrap())),
            ..to(destination, OVERLAY)
        }
    }

    fn found(routes: &[Route]) -> Peers {
        let gateways = ["10.244.2.0", "fd00:2::"].map(|ip| (ip.parse().unwrap(), THEIRS));
        peers(&overlay(), 8472, routes, &BTreeMap::from(gateways))
    }

    fn key(network: &str) -> TunnelKey {
        tunnels::key(&network.parse().unwrap())
    }

    fn value() -> PeerValue {
        PeerValue {
            remote: Addr::from("192.168.77.2".parse::<IpAddr>().unwrap()),
            local: Addr::ANY_V6,
            vni: 5,
            mtu: 1450,
            port: 8472_u16.to_be(),
            ethernet: ethernet(THEIRS, OURS),
        }
    }

    #[test]
    fn peers_are_where_the_overlays_routes_lead() {
        let route = over("10.244.2.0/24", "10.244.2.0");
        let key = key("10.244.2.0/24");
        assert_eq!(
            found(std::slice::from_ref(&route)),
            BTreeMap::from([(key, value())])
        );
        let small = Route {
            mtu: Some(1400),
            ..route
        };
        assert_eq!(found(&[small])[&key].mtu, 1400);
        let source = "192.168.77.1".parse().unwrap();
        let with_source = Route {
            encap: route.encap.map(|encap| Encap {
                source: Some(source),
                ..encap
            }),
            ..route
        };
        assert_eq!(found(&[with_source])[&key].local, source.into());
        let unknown = over("10.244.2.0/24", "10.244.2.9");
        let direct = Route {
            encap: None,
            ..route
        };
        let better = Route {
            metric: Some(5),
            ..to("10.244.2.0/24", UPLINK)
        };
        let worse = Route {
            metric: Some(10),
            ..route
        };
        for others in [vec![unknown], vec![direct], vec![worse, better]] {
            assert_eq!(found(&others), BTreeMap::new(), "{others:?}");
        }
    }

    #[test]
    fn what_leads_elsewhere_within_a_peers_network_is_left_to_the_stack() {
        for (network, gateway, within, without) in [
            (
                "10.244.2.0/24",
                "10.244.2.0",
                "10.244.2.7/32",
                ["10.244.3.7/32", "10.244.0.0/16", "0.0.0.0/0"],
            ),
            (
                "fd00:2::/64",
                "fd00:2::",
                "fd00:2::7:0/112",
                ["fd00:3::7/128", "fd00::/16", "::/0"],
            ),
        ] {
            let mut routes = vec![over(network, gateway), to(within, UPLINK)];
            routes.extend(without.map(|other| to(other, UPLINK)));
            let peers = found(&routes);
            let expected = [(key(network), value()), (key(within), PeerValue::default())];
            assert_eq!(peers, BTreeMap::from(expected));
            assert!(concerns(&to(within, UPLINK), &peers));
            assert!(concerns(&to(network, UPLINK), &peers));
            for other in without {
                assert!(!concerns(&to(other, UPLINK), &peers), "{other}");
            }
        }
    }
}
