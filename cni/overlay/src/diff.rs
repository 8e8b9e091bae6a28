//! Desired and observed → operations. Pure. What is right is not touched.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{MacAddr, Route};
use seaway_model::ownership::VXLAN_LINK;

use crate::observe::{DeviceSeen, Observed};
use crate::plan::{Desired, Device, Hop, Way};

#[cfg(test)]
mod tests;

/// One change. Its text is what the log says before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    DeleteDevice,
    CreateDevice(Device),
    /// Out of the bridge or the like that somebody has put it into.
    Detach,
    SetMac(MacAddr),
    SetMtu(u32),
    SetOffload(bool),
    SetReceiveOffload(bool),
    SetUp,
    Setting {
        key: String,
        value: &'static str,
    },
    AddAddress(IpNetwork),
    DeleteAddress(IpNetwork),
    SetNeighbour(IpAddr, MacAddr),
    DeleteNeighbour(IpAddr),
    SetRoute(IpNetwork, Hop),
    DeleteRoute(Route),
}

impl Operation {
    /// Whether it is about the device, or something on it.
    pub fn needs_device(&self) -> bool {
        match self {
            Self::Setting { key, .. } => key.contains(VXLAN_LINK),
            Self::SetRoute(_, hop) => matches!(hop.way, Way::Tunnel { .. }),
            Self::DeleteRoute(_) => false,
            _ => true,
        }
    }
}

/// The changes, in an order in which no packet meets a half-made peer: device, settings, addresses, then each peer's
/// neighbour before its route; what is no longer wanted goes last, routes before neighbours.
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Operation> {
    let mut operations = Vec::new();
    let survivors;
    let kept = device(&desired.device, observed.device.as_ref(), &mut operations);
    // A new device starts empty; settings of other things stay known.
    let (on_device, index) = match kept {
        Some(seen) => (observed, seen.link.index),
        None => {
            let old = observed.device.as_ref().map(|seen| seen.link.index);
            let elsewhere = observed.routes.iter().filter(|route| route.link != old);
            survivors = Observed {
                routes: elsewhere.cloned().collect(),
                ..Observed::default()
            };
            (&survivors, 0)
        }
    };
    for (key, value) in &desired.settings {
        let current = observed.settings.get(key).map(String::as_str);
        let of_device = key.contains(VXLAN_LINK);
        if current != Some(value) || (of_device && kept.is_none()) {
            let key = key.clone();
            operations.push(Operation::Setting { key, value });
        }
    }
    let missing = desired.addresses.difference(&on_device.addresses);
    operations.extend(missing.map(|network| Operation::AddAddress(*network)));
    peers(desired, on_device, index, &mut operations);
    let surplus = on_device.addresses.difference(&desired.addresses);
    operations.extend(surplus.map(|network| Operation::DeleteAddress(*network)));
    operations
}

/// Answers the device if it may stay. Its kind, mode and port cannot be changed in place, everything else can.
fn device<'a>(
    wanted: &Device,
    seen: Option<&'a DeviceSeen>,
    operations: &mut Vec<Operation>,
) -> Option<&'a DeviceSeen> {
    let fits = |seen: &&DeviceSeen| {
        seen.vxlan
            .is_some_and(|v| v.external && !v.learning && v.port == wanted.port)
    };
    let Some(seen) = seen.filter(fits).or_else(|| {
        operations.extend(seen.map(|_| Operation::DeleteDevice));
        None
    }) else {
        operations.push(Operation::CreateDevice(*wanted));
        if !wanted.checksum_offload {
            operations.push(Operation::SetOffload(false));
        }
        if !wanted.receive_offload {
            operations.push(Operation::SetReceiveOffload(false));
        }
        operations.push(Operation::SetUp);
        return None;
    };
    // First: a bridge takes the MTU of its ports, and may be the uplink.
    if seen.link.master.is_some() {
        operations.push(Operation::Detach);
    }
    if seen.link.mac != Some(wanted.mac) {
        operations.push(Operation::SetMac(wanted.mac));
    }
    if seen.link.mtu != wanted.mtu {
        operations.push(Operation::SetMtu(wanted.mtu));
    }
    if seen.checksum_offload != wanted.checksum_offload {
        operations.push(Operation::SetOffload(wanted.checksum_offload));
    }
    if seen.receive_offload != wanted.receive_offload {
        operations.push(Operation::SetReceiveOffload(wanted.receive_offload));
    }
    if !seen.link.up {
        operations.push(Operation::SetUp);
    }
    Some(seen)
}

fn peers(desired: &Desired, observed: &Observed, link: u32, operations: &mut Vec<Operation>) {
    let neighbours: BTreeMap<_, _> = observed
        .neighbours
        .iter()
        .map(|n| (n.address, n.mac.filter(|_| n.permanent)))
        .collect();
    for (address, mac) in &desired.neighbours {
        if neighbours.get(address) != Some(&Some(*mac)) {
            operations.push(Operation::SetNeighbour(*address, *mac));
        }
    }
    let mut seen: BTreeMap<IpNetwork, Vec<&Route>> = BTreeMap::new();
    for route in &observed.routes {
        seen.entry(route.destination).or_default().push(route);
    }
    let mut surplus = Vec::new();
    for (destination, hop) in &desired.routes {
        let wanted = hop.route(*destination, link);
        let there = seen.remove(destination).unwrap_or_default();
        let right = there
            .iter()
            .position(|route| metric(route) == metric(&wanted) && same(route, &wanted));
        if right.is_none() {
            let first = there.iter().filter(|route| blocks(route, &wanted));
            operations.extend(first.map(|route| Operation::DeleteRoute((*route).clone())));
            operations.push(Operation::SetRoute(*destination, *hop));
        }
        // Setting a route replaces the one to the same destination with the same metric: to delete that as well could
        // hit the new one, because IPv6 does not look at the encapsulation.
        surplus.extend(there.iter().enumerate().filter_map(|(index, route)| {
            let stays = right.map_or(metric(route) == metric(&wanted), |right| right == index);
            (!stays).then_some(*route)
        }));
    }
    surplus.extend(seen.into_values().flatten());
    operations.extend(surplus.into_iter().cloned().map(Operation::DeleteRoute));
    for address in neighbours.keys() {
        if !desired.neighbours.contains_key(address) {
            operations.push(Operation::DeleteNeighbour(*address));
        }
    }
}

/// Whether one route cannot be replaced by another in one step: IPv6 takes no gateway on one link while another leads to
/// it (`ip6_route_check_nh_onlink` in net/ipv6/route.c), and our gateways are inside of what they lead to.
fn blocks(there: &Route, wanted: &Route) -> bool {
    wanted.destination.is_ipv6() && wanted.onlink && there.link != wanted.link
}

/// The kernel gives IPv6 routes a metric of 1024 when none is set.
pub(crate) fn metric(route: &Route) -> u32 {
    let default = if route.destination.is_ipv6() { 1024 } else { 0 };
    route.metric.unwrap_or(default)
}

/// Equal but for the metric.
pub(crate) fn same(seen: &Route, wanted: &Route) -> bool {
    let Route {
        destination,
        gateway,
        link,
        source,
        scope,
        kind,
        table,
        protocol,
        metric: _,
        onlink,
        encap,
        mtu,
    } = wanted;
    seen.destination == *destination
        && seen.gateway == *gateway
        && seen.link == *link
        && seen.source == *source
        && seen.scope == *scope
        && seen.kind == *kind
        && seen.table == *table
        && seen.protocol == *protocol
        && seen.onlink == *onlink
        && seen.encap == *encap
        && seen.mtu == *mtu
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteDevice => write!(f, "delete {VXLAN_LINK} (not as wanted)"),
            Self::CreateDevice(Device { port, mac, mtu, .. }) => {
                write!(f, "create {VXLAN_LINK} port {port} address {mac} mtu {mtu}")
            }
            Self::Detach => write!(
                f,
                "take {VXLAN_LINK} out of the link that it was made a port of"
            ),
            Self::SetMac(mac) => write!(f, "set {VXLAN_LINK} address {mac}"),
            Self::SetMtu(mtu) => write!(f, "set {VXLAN_LINK} mtu {mtu}"),
            Self::SetOffload(on) => {
                write!(f, "set {VXLAN_LINK} checksum offload {}", word(*on))
            }
            Self::SetReceiveOffload(on) => {
                write!(f, "set {VXLAN_LINK} receive offload {}", word(*on))
            }
            Self::SetUp => write!(f, "set {VXLAN_LINK} up"),
            Self::Setting { key, value } => write!(f, "sysctl {key}={value}"),
            Self::AddAddress(network) => write!(f, "add address {network}"),
            Self::DeleteAddress(network) => write!(f, "delete address {network}"),
            Self::SetNeighbour(address, mac) => write!(f, "set neighbour {address} lladdr {mac}"),
            Self::DeleteNeighbour(address) => write!(f, "delete neighbour {address}"),
            Self::SetRoute(destination, hop) => {
                write!(f, "set route {destination} ")?;
                match hop.way {
                    Way::Tunnel { gateway, encap } => write!(f, "encap {encap} via {gateway}")?,
                    Way::Direct { gateway, link } => write!(f, "via {gateway} dev #{link}")?,
                }
                hop.mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
            }
            Self::DeleteRoute(route) => write!(f, "delete route {route}"),
        }
    }
}
