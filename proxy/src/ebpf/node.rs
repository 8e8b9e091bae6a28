//! The node as its kernel shows it: addresses, and which links carry what. Reading is at the end; what it means is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::config::CONFIG_MASQUERADE_ALL;
use seaway_ebpf_abi::{Cidr, Config, MAX_CIDRS};
use seaway_kernel::{Address, Link, Netlink, Route, RouteFilter, Scope};
use seaway_model::ownership::{POD_LINK_DIGITS, POD_LINK_PREFIX, VXLAN_LINK};

use super::config::EbpfConfig;
use super::error::EbpfError;

/// What a link carries, and so which programs belong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Host side of a pod's veth.
    Pod,
    /// Has a default route or an address that others reach us by.
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
}

/// What the programs have to know of the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NodeView {
    /// By index.
    pub(super) links: BTreeMap<u32, NodeLink>,
    /// Every IPv4 address of the node but 127.0.0.0/8.
    pub(super) addresses: BTreeSet<Ipv4Addr>,
    pub(super) node_addr: Option<Ipv4Addr>,
    pub(super) overlay_addr: Option<Ipv4Addr>,
    pub(super) overlay_ifindex: Option<u32>,
}

/// The role that a link has by its name alone.
pub(super) fn role_by_name(name: &str) -> Option<Role> {
    if name == VXLAN_LINK {
        return Some(Role::Overlay);
    }
    let digits = name.strip_prefix(POD_LINK_PREFIX)?;
    (digits.len() == POD_LINK_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .then_some(Role::Pod)
}

/// Makes sense of what the kernel listed.
fn view(
    links: &[Link],
    addresses: &[Address],
    routes: &[Route],
    node_ip: Option<Ipv4Addr>,
) -> NodeView {
    let v4 = |address: &Address| match address.network.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() => Some((address.link, ip, address.scope)),
        _ => None,
    };
    let v4: Vec<(u32, Ipv4Addr, Scope)> = addresses.iter().filter_map(v4).collect();
    let defaults: Vec<&Route> = routes
        .iter()
        .filter(|route| route.destination.is_ipv4() && route.destination.prefix() == 0)
        .collect();
    let is_loopback = |link: &Link| link.name == "lo";
    let mut seen = NodeView {
        addresses: v4.iter().map(|(_, ip, _)| *ip).collect(),
        ..NodeView::default()
    };
    for link in links.iter().filter(|link| !is_loopback(link)) {
        let reached = defaults.iter().any(|r| r.link == Some(link.index))
            || v4
                .iter()
                .any(|(index, _, scope)| *index == link.index && *scope == Scope::Global);
        let role = role_by_name(&link.name).or(reached.then_some(Role::Uplink));
        if let Some(role) = role {
            let name = link.name.clone();
            seen.links.insert(link.index, NodeLink { name, role });
        }
    }
    let with_role = |wanted: Role| {
        seen.links
            .iter()
            .find(|(_, link)| link.role == wanted)
            .map(|(index, _)| *index)
    };
    let first_on = |index: u32| v4.iter().find(|a| a.0 == index).map(|a| a.1);
    seen.overlay_ifindex = with_role(Role::Overlay);
    seen.overlay_addr = seen.overlay_ifindex.and_then(first_on);
    seen.node_addr = node_ip
        .or_else(|| {
            let route = defaults.iter().min_by_key(|r| r.metric.unwrap_or(0))?;
            match route.source {
                Some(IpAddr::V4(ip)) => Some(ip),
                _ => first_on(route.link?),
            }
        })
        .or_else(|| {
            let uplinks = seen.links.iter().filter(|(_, l)| l.role == Role::Uplink);
            uplinks.into_iter().find_map(|(index, _)| first_on(*index))
        });
    seen
}

/// Network byte order, as programs want it.
pub(super) fn bits(addr: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(addr.octets())
}

/// And back.
pub(super) fn addr(bits: u32) -> Ipv4Addr {
    Ipv4Addr::from(bits.to_ne_bytes())
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
    let mut config = Config {
        netns_cookie,
        overlay_addr: view.overlay_addr.map_or(0, bits),
        node_addr: view.node_addr.map_or(0, bits),
        overlay_ifindex: view.overlay_ifindex.unwrap_or(0),
        flags: if settings.masquerade_all {
            CONFIG_MASQUERADE_ALL
        } else {
            0
        },
        ..Config::default()
    };
    (config.snat_port_min, config.snat_port_max) = snat_ports(socket_ports);
    let networks = settings.cluster_cidrs.iter().filter_map(|cidr| match cidr {
        IpNetwork::V4(network) => Some(Cidr {
            addr: bits(network.network()),
            mask: bits(network.mask()),
        }),
        IpNetwork::V6(_) => None,
    });
    for (slot, network) in config.cidrs.iter_mut().zip(networks.take(MAX_CIDRS)) {
        *slot = network;
        config.cidr_count += 1;
    }
    config
}

/// Asks the kernel.
pub(super) async fn read(
    netlink: &Netlink,
    node_ip: Option<Ipv4Addr>,
) -> Result<NodeView, EbpfError> {
    let links = netlink.links().await?;
    let addresses = netlink.addresses(None).await?;
    let routes = netlink
        .routes(RouteFilter {
            table: Some(seaway_kernel::route::TABLE_MAIN),
            ..RouteFilter::default()
        })
        .await?;
    Ok(view(&links, &addresses, &routes, node_ip))
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
