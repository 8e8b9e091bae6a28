//! Desired and observed → operations. Pure. What is right is not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{MacAddr, Route};
use seaway_model::ownership::VXLAN_LINK;

use crate::observe::{DeviceSeen, Observed};
use crate::plan::{Desired, Device, Tunnel};

#[cfg(test)]
mod tests;

/// One change. Its text is what the log says before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    DeleteDevice,
    CreateDevice(Device),
    SetMac(MacAddr),
    SetMtu(u32),
    SetUp,
    Setting { key: String, value: &'static str },
    AddAddress(IpNetwork),
    DeleteAddress(IpNetwork),
    SetNeighbour(IpAddr, MacAddr),
    DeleteNeighbour(IpAddr),
    SetRoute(IpNetwork, Tunnel),
    DeleteRoute(Route),
}

/// The changes, in an order in which no packet meets a half-made peer: device, settings, addresses, then each peer's
/// neighbour before its route; what is no longer wanted goes last, routes before neighbours.
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Operation> {
    let mut operations = Vec::new();
    let nothing = Observed::default();
    let kept = device(&desired.device, observed.device.as_ref(), &mut operations);
    // A new device starts empty; settings of other things stay known.
    let (on_device, index) = match kept {
        Some(seen) => (observed, seen.link.index),
        None => (&nothing, 0),
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
        operations.extend([Operation::CreateDevice(*wanted), Operation::SetUp]);
        return None;
    };
    if seen.link.mac != Some(wanted.mac) {
        operations.push(Operation::SetMac(wanted.mac));
    }
    if seen.link.mtu != wanted.mtu {
        operations.push(Operation::SetMtu(wanted.mtu));
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
    let routes: BTreeSet<&Route> = observed.routes.iter().collect();
    let mut right = BTreeSet::new();
    let mut replaced = BTreeSet::new();
    for (destination, tunnel) in &desired.routes {
        let wanted = normal(tunnel.route(*destination, link));
        match routes
            .iter()
            .find(|route| normal((**route).clone()) == wanted)
        {
            Some(route) => {
                right.insert(*route);
            }
            None => {
                replaced.insert(*destination);
                operations.push(Operation::SetRoute(*destination, *tunnel));
            }
        }
    }
    for route in routes {
        // Setting a route replaces the one to the same destination, of the same metric, in its table.
        let overwritten = replaced.contains(&route.destination)
            && route.destination.is_ipv4()
            && route.metric.is_none();
        if !right.contains(route) && !overwritten {
            operations.push(Operation::DeleteRoute(route.clone()));
        }
    }
    for address in neighbours.keys() {
        if !desired.neighbours.contains_key(address) {
            operations.push(Operation::DeleteNeighbour(*address));
        }
    }
}

/// The kernel gives IPv6 routes a metric of 1024 when none is set.
fn normal(mut route: Route) -> Route {
    if route.destination.is_ipv6() && route.metric == Some(1024) {
        route.metric = None;
    }
    route
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteDevice => write!(f, "delete {VXLAN_LINK} (not as wanted)"),
            Self::CreateDevice(Device { port, mac, mtu }) => {
                write!(f, "create {VXLAN_LINK} port {port} address {mac} mtu {mtu}")
            }
            Self::SetMac(mac) => write!(f, "set {VXLAN_LINK} address {mac}"),
            Self::SetMtu(mtu) => write!(f, "set {VXLAN_LINK} mtu {mtu}"),
            Self::SetUp => write!(f, "set {VXLAN_LINK} up"),
            Self::Setting { key, value } => write!(f, "sysctl {key}={value}"),
            Self::AddAddress(network) => write!(f, "add address {network}"),
            Self::DeleteAddress(network) => write!(f, "delete address {network}"),
            Self::SetNeighbour(address, mac) => write!(f, "set neighbour {address} lladdr {mac}"),
            Self::DeleteNeighbour(address) => write!(f, "delete neighbour {address}"),
            Self::SetRoute(destination, tunnel) => write!(
                f,
                "set route {destination} encap id {} dst {} via {}",
                tunnel.encap.id, tunnel.encap.remote, tunnel.gateway
            ),
            Self::DeleteRoute(route) => write!(f, "delete route {route}"),
        }
    }
}
