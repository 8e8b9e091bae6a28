//! Where the pods of other nodes are, by the routes over the overlay: whoever built it, the kernel's routes say what is true.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use clap::ValueEnum;
use ipnetwork::IpNetwork;
use seaway_cluster::direct::Answering;
use seaway_ebpf_abi::dsr::{TUNNEL_BEGINNING, TUNNEL_BEGUN};
use seaway_ebpf_abi::{Cidr, TunnelKey, TunnelValue, maps};
use seaway_kernel::route::TABLE_MAIN;
use seaway_kernel::{Link, LinkKind, NetNs, Offload, Route, RouteKind, VxlanSettings};
use seaway_model::DirectAnswers;
use tokio::sync::watch;

use super::error::EbpfError;
use super::table::Table;
use crate::task::blocking;

/// What becomes of clients outside whose endpoint is a pod of another node (`--forwarding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Forwarding {
    /// They are masqueraded, and answered through this node.
    #[default]
    Snat,
    /// Their packets go to that node as they are, which answers them itself ("direct server return").
    Dsr,
}

/// Nodes by the addresses behind them, and the UDP port of the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tunnels {
    pub(super) nodes: BTreeMap<IpNetwork, IpAddr>,
    port: u16,
}

/// The node that a route leads to, if that is through the overlay.
pub(super) fn of_route(route: &Route, overlay: u32) -> Option<(IpNetwork, IpAddr)> {
    let leads_there = route.kind == RouteKind::Unicast
        && route.table == TABLE_MAIN
        && route.link == Some(overlay);
    let encap = route.encap.filter(|_| leads_there)?;
    Some((route.destination, encap.remote))
}

/// All of them; none if the overlay does not ask its routes where packets go. Of two routes to one destination the kernel takes the one
/// with the smaller metric.
pub(super) fn of_routes(routes: &[Route], overlay: &Link) -> Tunnels {
    let LinkKind::Vxlan(VxlanSettings {
        external: true,
        port,
        ..
    }) = overlay.kind
    else {
        return Tunnels::default();
    };
    let mut best: BTreeMap<IpNetwork, &Route> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.table == TABLE_MAIN) {
        let metric = |route: &Route| route.metric.unwrap_or(0);
        let known = best.entry(route.destination).or_insert(route);
        if metric(route) < metric(known) {
            *known = route;
        }
    }
    let routes = best.into_values();
    Tunnels {
        nodes: routes
            .filter_map(|route| of_route(route, overlay.index))
            .collect(),
        port,
    }
}

/// The UDP port of the overlay, for programs that do what its device does; 0 where they are not to. They leave checksums to the
/// uplink's card: not while the device computes them before.
pub(super) async fn port_for_programs(netns: &NetNs, overlay: &Link) -> u16 {
    let port = of_routes(&[], overlay).port;
    let (netns, name) = (netns.clone(), overlay.name.clone());
    let offloads = blocking(move || {
        let _inside = netns.enter()?;
        Offload::open()?.checksum(&name)
    });
    match offloads.await {
        Ok(true) => port,
        Ok(false) => 0,
        Err(error) => {
            tracing::debug!(%error, "all tunnels are left to the overlay's device");
            0
        }
    }
}

impl Tunnels {
    /// Of a node that is known to be in the map already, that entry says whose packets it takes while nodes have not been heard.
    fn value(
        &self,
        remote: IpAddr,
        answering: Option<&Answering>,
        known: Option<&TunnelValue>,
    ) -> TunnelValue {
        TunnelValue {
            remote: remote.into(),
            port: self.port.to_be(),
            flags: match answering {
                Some(answering) => flags(answering.get(&remote).copied()),
                None => known.map_or(0, |known| known.flags),
            },
        }
    }
}

/// Whose packets may be sent on to a node that says this.
fn flags(says: Option<DirectAnswers>) -> u16 {
    match says.unwrap_or_default() {
        DirectAnswers::No => 0,
        DirectAnswers::Begun => TUNNEL_BEGUN,
        DirectAnswers::All => TUNNEL_BEGUN | TUNNEL_BEGINNING,
    }
}

pub(super) fn key(network: &IpNetwork) -> TunnelKey {
    let cidr = Cidr::new(network.ip(), network.prefix());
    TunnelKey {
        prefix: cidr.mask.words.iter().map(|word| word.count_ones()).sum(),
        addr: cidr.addr,
    }
}

/// Writes one more, if the overlay takes any.
pub(super) fn add(
    dir: &Path,
    tunnels: &mut Tunnels,
    (network, remote): (IpNetwork, IpAddr),
    answering: Option<&Answering>,
) -> Result<(), EbpfError> {
    if tunnels.port == 0 {
        return Ok(());
    }
    tunnels.nodes.insert(network, remote);
    match Table::open(dir, maps::TUNNELS)? {
        Some(table) => table.set(&key(&network), &tunnels.value(remote, answering, None)),
        None => Ok(()),
    }
}

/// Writes them into the map of the programs, as far as they differ, with what nodes say once all have been heard. Returns the number
/// of writes.
pub(super) fn write(
    dir: &Path,
    tunnels: &Tunnels,
    answering: Option<&Answering>,
) -> Result<usize, EbpfError> {
    let Some(table) = Table::<TunnelKey, TunnelValue>::open(dir, maps::TUNNELS)? else {
        return Ok(0);
    };
    let there: BTreeMap<TunnelKey, TunnelValue> = table.entries()?.into_iter().collect();
    let nodes = tunnels.nodes.iter();
    let wanted: BTreeMap<TunnelKey, TunnelValue> = nodes
        .map(|(network, remote)| {
            let key = key(network);
            (key, tunnels.value(*remote, answering, there.get(&key)))
        })
        .collect();
    let mut writes = 0;
    for (key, value) in &wanted {
        if there.get(key) != Some(value) {
            table.set(key, value)?;
            writes += 1;
        }
    }
    for key in there.keys().filter(|key| !wanted.contains_key(key)) {
        table.delete(key)?;
        writes += 1;
    }
    Ok(writes)
}

/// Waits until nodes say something else.
pub(super) async fn heard(answering: &mut watch::Receiver<Option<Answering>>) {
    if answering.changed().await.is_err() {
        // Nobody listens to them.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use seaway_kernel::Encap;

    use super::*;

    const OVERLAY: u32 = 7;

    fn overlay(external: bool) -> Link {
        Link {
            index: OVERLAY,
            name: "seaway.vxlan".to_owned(),
            kind: LinkKind::Vxlan(VxlanSettings {
                external,
                port: 8472,
                learning: false,
                vni: 0,
                lower: None,
            }),
            mtu: 1450,
            mac: None,
            up: true,
            running: true,
            master: None,
            peer: None,
            framing: seaway_kernel::Framing::Ethernet,
            peer_netns: None,
        }
    }

    fn route(destination: &str, remote: Option<&str>, metric: Option<u32>) -> Route {
        Route {
            link: Some(OVERLAY),
            metric,
            encap: remote.map(|remote| Encap::new(1, remote.parse().unwrap())),
            ..Route::new(destination.parse().unwrap(), 83)
        }
    }

    #[test]
    fn only_routes_that_encapsulate_over_the_overlay_count() {
        let there = route("10.244.2.0/24", Some("192.168.77.2"), None);
        let elsewhere = Route {
            link: Some(OVERLAY + 1),
            ..route("10.244.3.0/24", Some("192.168.77.3"), None)
        };
        let table = Route {
            table: 100,
            ..route("10.244.4.0/24", Some("192.168.77.4"), None)
        };
        let plain = route("10.244.5.0/24", None, None);
        let v6 = route("fd00:10:244:2::/64", Some("fd00:77::2"), None);
        let routes = [there, elsewhere, table, plain, v6];
        let expected = [
            ("10.244.2.0/24", "192.168.77.2"),
            ("fd00:10:244:2::/64", "fd00:77::2"),
        ];
        let nodes = expected
            .iter()
            .map(|(network, remote)| (network.parse().unwrap(), remote.parse().unwrap()))
            .collect();
        let expected = Tunnels { nodes, port: 8472 };
        assert_eq!(of_routes(&routes, &overlay(true)), expected);
        assert_eq!(of_routes(&routes, &overlay(false)), Tunnels::default());
    }

    #[test]
    fn the_route_with_the_smaller_metric_counts() {
        let network = "10.244.2.0/24";
        let first = route(network, Some("192.168.77.2"), Some(10));
        let second = route(network, Some("192.168.77.3"), Some(5));
        let direct = Route {
            link: Some(2),
            ..route(network, None, None)
        };
        let found = |routes: &[Route]| of_routes(routes, &overlay(true)).nodes.into_values().next();
        let expected: Option<IpAddr> = "192.168.77.3".parse().ok();
        assert_eq!(found(&[first.clone(), second.clone()]), expected);
        assert_eq!(found(&[second.clone(), first.clone()]), expected);
        assert_eq!(found(&[first, direct, second]), None);
    }

    #[test]
    fn what_a_node_says_counts_once_all_are_heard() {
        let remote: IpAddr = "192.168.77.2".parse().unwrap();
        let tunnels = Tunnels::default();
        let says = |says| Some(Answering::from([(remote, says)]));
        let both = TUNNEL_BEGUN | TUNNEL_BEGINNING;
        let known = TunnelValue {
            flags: both,
            ..TunnelValue::default()
        };
        for (answering, known, expected) in [
            (None, None, 0),
            (None, Some(&known), both),
            (Some(Answering::new()), Some(&known), 0),
            (says(DirectAnswers::All), None, both),
            (says(DirectAnswers::Begun), Some(&known), TUNNEL_BEGUN),
            (says(DirectAnswers::No), Some(&known), 0),
        ] {
            let value = tunnels.value(remote, answering.as_ref(), known);
            assert_eq!(value.flags, expected, "{answering:?} {known:?}");
        }
    }

    #[test]
    fn a_network_becomes_a_key_of_128_bits() {
        for (network, addr, prefix) in [
            ("10.244.2.9/24", "10.244.2.0", 120),
            ("fd00:10:244:2::/64", "fd00:10:244:2::", 64),
        ] {
            let addr: IpAddr = addr.parse().unwrap();
            let expected = TunnelKey {
                prefix,
                addr: addr.into(),
            };
            assert_eq!(key(&network.parse().unwrap()), expected);
        }
    }
}
