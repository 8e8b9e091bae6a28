//! The node as its kernel shows it: addresses, and which links carry what. Reading is at the end; what it means is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::config::{
    CONFIG_DSR, CONFIG_LOCALHOST_NODE_PORTS, CONFIG_MASQUERADE_ALL, CONFIG_PODS_BY_LINK,
};
use seaway_ebpf_abi::{
    Addr, Cidr, Config, MAX_CIDRS, NODE_ADDR_LOCAL, NODE_ADDR_NODE_PORTS, config,
};
use seaway_kernel::{Address, Framing, Link, Netlink, Route, RouteFilter, Scope};
use seaway_model::ownership::{VXLAN_LINK, is_pod_link};
use seaway_model::{DetectLocal, Family};

use super::config::EbpfConfig;
use super::error::EbpfError;
use super::tunnels::{self, Forwarding, Tunnels};

mod pods;

pub(super) use pods::matter;

/// What a link carries, and so which programs belong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Host side of a pod's veth.
    Pod,
    /// Has a default route or an address that others reach us by, or leads to pods of other nodes.
    Uplink,
    /// The VXLAN device.
    Overlay,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Uplink => "uplink",
            Self::Overlay => "overlay",
        })
    }
}

/// A link that programs are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeLink {
    pub(super) name: String,
    pub(super) role: Role,
    /// Its packets have no header in front of IP.
    pub(super) bare: bool,
}

impl NodeLink {
    /// A link with that role; `None` if programs can do nothing with its packets.
    pub(super) fn new(link: &Link, role: Role) -> Option<Self> {
        (link.framing != Framing::Other).then(|| Self {
            name: link.name.clone(),
            role,
            bare: link.framing == Framing::None,
        })
    }
}

/// What the programs have to know of the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NodeView {
    /// By index.
    pub(super) links: BTreeMap<u32, NodeLink>,
    /// Links to which programs would belong, if they knew what is in front of its packets: by name.
    pub(super) unframed: BTreeSet<String>,
    /// Every address of the node but loopback.
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) v4: FamilyView,
    pub(super) v6: FamilyView,
    pub(super) overlay_ifindex: Option<u32>,
    pub(super) tunnels: Tunnels,
}

/// The addresses to masquerade with, of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FamilyView {
    pub(super) node_addr: Option<IpAddr>,
    pub(super) overlay_addr: Option<IpAddr>,
}

/// The role that a link has by its name alone.
pub(super) fn role_by_name(name: &str, detect_local: &DetectLocal) -> Option<Role> {
    if name == VXLAN_LINK {
        return Some(Role::Overlay);
    }
    let carries_pods = match detect_local {
        DetectLocal::BridgeInterface(bridge) => name == bridge,
        DetectLocal::InterfaceNamePrefix(prefix) => name.starts_with(prefix.as_str()),
        DetectLocal::ClusterCidr(_) | DetectLocal::NodeCidr(_) | DetectLocal::None => false,
    };
    (is_pod_link(name) || carries_pods).then_some(Role::Pod)
}

/// Makes sense of what the kernel listed.
fn view(
    links: &[Link],
    addresses: &[Address],
    routes: &[Route],
    detect_local: &DetectLocal,
) -> NodeView {
    let own: Vec<&Address> = addresses
        .iter()
        .filter(|address| !address.network.ip().is_loopback())
        .collect();
    let defaults: Vec<&Route> = routes
        .iter()
        .filter(|route| route.destination.prefix() == 0)
        .collect();
    let mut seen = NodeView {
        addresses: own.iter().map(|address| address.network.ip()).collect(),
        ..NodeView::default()
    };
    for link in links.iter().filter(|link| link.name != "lo") {
        let leads_out = defaults.iter().any(|r| r.link == Some(link.index));
        let has_address = own
            .iter()
            .any(|address| address.link == link.index && address.scope == Scope::Global);
        let role = role_by_name(&link.name, detect_local)
            .or(leads_out.then_some(Role::Uplink))
            .or_else(|| pods::role(link, has_address, routes, detect_local))
            .or(has_address.then_some(Role::Uplink));
        if let Some(role) = role {
            match NodeLink::new(link, role) {
                Some(node_link) => _ = seen.links.insert(link.index, node_link),
                None => _ = seen.unframed.insert(link.name.clone()),
            }
        }
    }
    let overlay = seen.links.iter().find(|(_, l)| l.role == Role::Overlay);
    seen.overlay_ifindex = overlay.map(|(index, _)| *index);
    seen.tunnels = links
        .iter()
        .find(|link| seen.overlay_ifindex == Some(link.index))
        .map(|overlay| tunnels::of_routes(routes, overlay))
        .unwrap_or_default();
    for family in [Family::V4, Family::V6] {
        let of_family = FamilyView {
            node_addr: node_addr(&seen, family, &own, &defaults),
            overlay_addr: seen
                .overlay_ifindex
                .and_then(|index| first_on(&own, index, family)),
        };
        match family {
            Family::V4 => seen.v4 = of_family,
            Family::V6 => seen.v6 = of_family,
        }
    }
    seen
}

/// The address that leaves this node by default.
fn node_addr(
    seen: &NodeView,
    family: Family,
    own: &[&Address],
    defaults: &[&Route],
) -> Option<IpAddr> {
    let route = defaults
        .iter()
        .filter(|route| Family::of(route.destination.ip()) == family)
        .min_by_key(|route| route.metric.unwrap_or(0));
    let by_route = route.and_then(|route| match route.source {
        Some(source) => Some(source),
        None => first_on(own, route.link?, family),
    });
    by_route.or_else(|| {
        let mut uplinks = seen.links.iter().filter(|(_, l)| l.role == Role::Uplink);
        uplinks.find_map(|(index, _)| first_on(own, *index, family))
    })
}

/// The first address of a link that is good beyond it.
fn first_on(own: &[&Address], link: u32, family: Family) -> Option<IpAddr> {
    own.iter()
        .filter(|address| address.link == link && address.scope == Scope::Global)
        .map(|address| address.network.ip())
        .find(|ip| Family::of(*ip) == family)
}

/// The ports to masquerade with: what lies outside of the range that the kernel gives to sockets, on its larger side,
/// and not below 1024.
fn snat_ports((low, high): (u16, u16)) -> (u16, u16) {
    let below = (1024, low.saturating_sub(1));
    let above = (high.saturating_add(1), u16::MAX);
    let size = |(min, max): (u16, u16)| max.saturating_sub(min);
    match (size(below), size(above)) {
        // The sockets have it all: clashes are possible, but unlikely within the upper half.
        (b, a) if b.max(a) < 1024 => (32_768, u16::MAX),
        (b, a) if b >= a => below,
        _ => above,
    }
}

/// The configuration of the programs.
pub(super) fn config(
    view: &NodeView,
    settings: &EbpfConfig,
    netns_cookie: u64,
    socket_ports: (u16, u16),
) -> Config {
    let by_link = matches!(
        settings.detect_local,
        DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_)
    );
    let flags = [
        (settings.masquerade_all, CONFIG_MASQUERADE_ALL),
        (by_link, CONFIG_PODS_BY_LINK),
        (
            settings.node_port_addresses.is_none(),
            CONFIG_LOCALHOST_NODE_PORTS,
        ),
        (settings.forwarding == Forwarding::Dsr, CONFIG_DSR),
    ];
    let (snat_port_min, snat_port_max) = snat_ports(socket_ports);
    let cidrs = settings.detect_local.cidrs();
    Config {
        netns_cookie,
        overlay_ifindex: view.overlay_ifindex.unwrap_or(0),
        flags: flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, bit)| bit)
            .sum(),
        snat_port_min,
        snat_port_max,
        hash_seed: settings.maglev_seed,
        v4: family_config(&view.v4, Addr::ANY_V4, cidrs, Family::V4),
        v6: family_config(&view.v6, Addr::ANY_V6, cidrs, Family::V6),
    }
}

fn family_config(
    view: &FamilyView,
    none: Addr,
    cidrs: &[IpNetwork],
    family: Family,
) -> config::Family {
    let mut config = config::Family {
        overlay_addr: view.overlay_addr.map_or(none, Addr::from),
        node_addr: view.node_addr.map_or(none, Addr::from),
        ..config::Family::default()
    };
    let of_family = cidrs.iter().filter(|cidr| Family::of(cidr.ip()) == family);
    for (slot, cidr) in config.cidrs.iter_mut().zip(of_family.take(MAX_CIDRS)) {
        *slot = Cidr::new(cidr.ip(), cidr.prefix());
        config.cidr_count += 1;
    }
    config
}

/// The node's addresses, as the map holds them.
pub(super) fn addresses(view: &NodeView, settings: &EbpfConfig) -> BTreeMap<Addr, u32> {
    let serves = |ip: IpAddr| {
        let ranges = settings.node_port_addresses.as_ref();
        ranges.is_none_or(|ranges| ranges.iter().any(|range| range.contains(ip)))
    };
    let bits = |ip: &IpAddr| match serves(*ip) {
        true => NODE_ADDR_LOCAL | NODE_ADDR_NODE_PORTS,
        false => NODE_ADDR_LOCAL,
    };
    let addresses = view.addresses.iter();
    addresses.map(|ip| (Addr::from(*ip), bits(ip))).collect()
}

/// Asks the kernel.
pub(super) async fn read(
    netlink: &Netlink,
    detect_local: &DetectLocal,
) -> Result<NodeView, EbpfError> {
    let links = netlink.links().await?;
    let addresses = netlink.addresses(None).await?;
    let routes = netlink
        .routes(RouteFilter {
            table: Some(seaway_kernel::route::TABLE_MAIN),
            ..RouteFilter::default()
        })
        .await?;
    Ok(view(&links, &addresses, &routes, detect_local))
}

/// `net.ipv4.ip_local_port_range`.
pub(super) fn socket_ports() -> Result<(u16, u16), EbpfError> {
    let text = seaway_kernel::sysctl::read("net.ipv4.ip_local_port_range")?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Ok((low, high)),
        // The kernel's default, should the file ever look different.
        _ => Ok((32_768, 60_999)),
    }
}

#[cfg(test)]
mod tests;
