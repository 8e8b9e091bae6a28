//! Pods by their addresses, as the node's routes and neighbours have them: what the programs need to send packets between pods
//! past the stack, and to tell a pod's own addresses from others. What it means is here and in [`peers`], and is pure; [`ask`]
//! reads it, [`follow`] keeps it in step, [`maps`] writes it. [`fast`] and [`rules`] say whether packets go that way, [`detours`] which
//! flows do not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clap::ValueEnum;
use ipnetwork::IpNetwork;
use seaway_ebpf_abi::pod::{POD_FAST, POD_LINK_FAST, POD_LINK_V4, POD_LINK_V6, PODS_LEN, pod_link};
use seaway_ebpf_abi::{Addr, PodLink, PodValue};
use seaway_kernel::route::TABLE_MAIN;
use seaway_kernel::{Link, LinkKind, MacAddr, Route, RouteKind};
use seaway_model::Family;

mod ask;
mod detours;
mod fast;
mod follow;
mod maps;
mod peers;
mod rules;

pub(super) use ask::Answers;
pub(super) use fast::{FastPath, flags};
pub(super) use follow::Pods;
pub(super) use maps::{clear, held};

/// Whether packets between pods go past the stack, and so past the rules of others (`--pod-fast-path`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PodFastPath {
    /// Unless somebody else has rules for packets that the node forwards.
    #[default]
    Auto,
    /// Whatever rules there are.
    On,
    /// Never.
    Off,
}

/// The node's end of a pod's link, and what lies behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Side {
    link: Link,
    /// The name is one of ours: nobody else has a say in what addresses are there.
    ours: bool,
    /// What passes the link is limited, which only the stack does.
    limited: bool,
    /// With a route to the link; and the pod's address of the link layer, where a permanent neighbour says it.
    addresses: BTreeMap<IpAddr, Option<MacAddr>>,
    /// Behind the pod there are others: what it sends need not be its own.
    others: BTreeSet<Family>,
}

impl Side {
    /// By the routes and the permanent neighbours of the link; `None` if it leads to no pod.
    fn new(
        link: Link,
        (ours, limited): (bool, bool),
        routes: &[Route],
        neighbours: &BTreeMap<IpAddr, MacAddr>,
    ) -> Option<Self> {
        let addresses: BTreeMap<_, _> = routes
            .iter()
            .filter_map(host_route)
            .map(|address| (address, neighbours.get(&address).copied()))
            .collect();
        let leads_away = link.kind == LinkKind::Veth && link.peer_netns.is_some();
        if !link.up || !leads_away || addresses.is_empty() {
            return None;
        }
        let others = routes
            .iter()
            .filter(|route| host_route(route).is_none() && !is_link_local(&route.destination))
            .map(|route| Family::of(route.destination.ip()))
            .collect();
        Some(Self {
            link,
            ours,
            limited,
            addresses,
            others,
        })
    }
}

/// The address that a route leads to directly behind a link.
fn host_route(route: &Route) -> Option<IpAddr> {
    let to = route.destination;
    let is_one = to.prefix() == if to.is_ipv4() { 32 } else { 128 };
    let direct = route.kind == RouteKind::Unicast
        && route.table == TABLE_MAIN
        && route.gateway.is_none()
        && route.encap.is_none();
    (is_one && direct).then_some(to.ip())
}

/// Routes that every IPv6 link has.
fn is_link_local(network: &IpNetwork) -> bool {
    match network.ip() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

/// Two addresses of the link layer as they stand in a frame.
fn ethernet(to: MacAddr, from: MacAddr) -> [u16; 6] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (to.0, from.0);
    [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]].map(u16::from_ne_bytes)
}

fn mtu(link: &Link) -> u16 {
    u16::try_from(link.mtu).unwrap_or(u16::MAX)
}

/// What the maps are to hold of this node's pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Local {
    addresses: BTreeMap<Addr, PodValue>,
    /// By place.
    links: BTreeMap<u32, PodLink>,
}

impl Local {
    /// By the links of pods. Of what has no room nothing is known, and the stack deals with it.
    fn new(sides: &BTreeMap<u32, Side>) -> Self {
        let mut pods = Self::default();
        for side in sides.values() {
            let mut link = side.as_link();
            for (address, mac) in &side.addresses {
                if !pods.insert(side, Addr::from(*address), *mac) {
                    // The pod may send with it all the same.
                    link.flags &= !known(Family::of(*address));
                }
            }
            let index = side.link.index;
            pods.links.entry(pod_link(index)).or_insert(link);
        }
        pods
    }

    /// Returns whether there was room.
    fn insert(&mut self, side: &Side, address: Addr, mac: Option<MacAddr>) -> bool {
        let ethernet = mac
            .zip(side.link.mac)
            .map(|(pod, host)| ethernet(pod, host));
        let is_full = self.addresses.len() >= PODS_LEN as usize;
        let other = self.addresses.get(&address);
        if is_full && other.is_none() {
            return false;
        }
        // Of two links with one address the kernel takes one; the stack knows which.
        let fast = ethernet.is_some() && !side.limited && other.is_none();
        let value = PodValue {
            ifindex: side.link.index,
            flags: if fast { POD_FAST } else { 0 },
            mtu: mtu(&side.link),
            ethernet: ethernet.unwrap_or_default(),
        };
        self.addresses.insert(address, value);
        true
    }
}

impl Side {
    fn as_link(&self) -> PodLink {
        let first = |family| {
            let mut addresses = self.addresses.keys().map(|ip| (Family::of(*ip), *ip));
            let found = addresses.find(|(of, _)| self.ours && *of == family);
            found.map(|(_, ip)| Addr::from(ip))
        };
        let (v4, v6) = (first(Family::V4), first(Family::V6));
        let flags = [
            (!self.limited, POD_LINK_FAST),
            (self.is_all(Family::V4), POD_LINK_V4),
            (self.is_all(Family::V6), POD_LINK_V6),
        ];
        let set = flags.iter().filter(|(set, _)| *set);
        PodLink {
            ifindex: self.link.index,
            flags: set.map(|(_, bit)| bit).sum(),
            v4: v4.map_or(0, |addr| addr.words[3]),
            pad: 0,
            v6: v6.unwrap_or(Addr::ANY_V6),
        }
    }

    /// Whether all addresses are known that the pod may send with, of a family of which it has any.
    fn is_all(&self, family: Family) -> bool {
        let has_any = self.addresses.keys().any(|ip| Family::of(*ip) == family);
        self.ours && has_any && !self.others.contains(&family)
    }
}

/// The bit that says so.
fn known(family: Family) -> u32 {
    match family {
        Family::V4 => POD_LINK_V4,
        Family::V6 => POD_LINK_V6,
    }
}

#[cfg(test)]
mod tests;
