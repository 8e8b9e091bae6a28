//! Routes to netlink messages and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteIp6TunnelFlags,
    RouteIpTunnel, RouteIpTunnelFlags, RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage,
    RouteMetric, RouteProtocol, RouteScope, RouteType,
};

use super::{Encap, Route, RouteFilter, RouteKind, Scope};

/// The message that adds or deletes a route.
pub(crate) fn routes_message(route: &Route) -> RouteMessage {
    let destination = route.destination.network();
    let mut message = RouteMessage::default();
    message.header.address_family = crate::netlink::family(destination);
    message.header.destination_prefix_length = route.destination.prefix();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::from(u8::from(route.scope));
    message.header.kind = RouteType::from(u8::from(route.kind));
    message.header.table = small_table(route.table);
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(destination.into()));
    attributes.push(RouteAttribute::Table(route.table));
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.link.map(RouteAttribute::Oif));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(
        route
            .mtu
            .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
    );
    if let Some(encap) = route.encap {
        let (kind, tunnel) = tunnel_of(encap);
        attributes.push(RouteAttribute::EncapType(kind));
        attributes.push(RouteAttribute::Encap(tunnel));
    }
    message
}

/// The message that asks for routes; with strict checking the kernel honours table, protocol and link.
pub(super) fn filter(family: AddressFamily, wanted: RouteFilter) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    if let Some(protocol) = wanted.protocol {
        message.header.protocol = RouteProtocol::from(protocol);
    }
    message
        .attributes
        .extend(wanted.table.map(RouteAttribute::Table));
    message
        .attributes
        .extend(wanted.link.map(RouteAttribute::Oif));
    message
}

/// The message that asks for the route to an address.
pub(super) fn to(destination: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = crate::netlink::family(destination);
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message
        .attributes
        .push(RouteAttribute::Destination(destination.into()));
    message
}

/// `None` for routes that this crate does not describe (MPLS and the like).
pub(crate) fn convert(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut destination = any;
    let mut route = Route {
        scope: Scope::from(u8::from(header.scope)),
        kind: RouteKind::from(u8::from(header.kind)),
        table: header.table.into(),
        onlink: header.flags.contains(RouteFlags::Onlink),
        ..Route::new(any.into(), header.protocol.into())
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip_of(address)?,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Encap(tunnel) => route.encap = encap_of(tunnel),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu_of(metrics),
            _ => {}
        }
    }
    route.destination = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    Some(route)
}

/// `rtm_table` is one byte; larger numbers stand in `RTA_TABLE` only.
fn small_table(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu).filter(|mtu| *mtu != 0),
        _ => None,
    })
}

fn tunnel_of(encap: Encap) -> (RouteLwEnCapType, Vec<RouteLwTunnelEncap>) {
    match encap.remote {
        IpAddr::V4(remote) => {
            let mut parts = vec![
                RouteIpTunnel::Id(encap.id),
                RouteIpTunnel::Destination(remote),
            ];
            if let Some(IpAddr::V4(source)) = encap.source {
                parts.push(RouteIpTunnel::Source(source));
            }
            if encap.checksum {
                parts.push(RouteIpTunnel::Flags(RouteIpTunnelFlags::Checksum));
            }
            let parts = parts.into_iter().map(RouteLwTunnelEncap::Ip).collect();
            (RouteLwEnCapType::Ip, parts)
        }
        IpAddr::V6(remote) => {
            let mut parts = vec![
                RouteIp6Tunnel::Id(encap.id),
                RouteIp6Tunnel::Destination(remote),
            ];
            if let Some(IpAddr::V6(source)) = encap.source {
                parts.push(RouteIp6Tunnel::Source(source));
            }
            if encap.checksum {
                parts.push(RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Checksum));
            }
            let parts = parts.into_iter().map(RouteLwTunnelEncap::Ip6).collect();
            (RouteLwEnCapType::Ip6, parts)
        }
    }
}

fn encap_of(tunnel: &[RouteLwTunnelEncap]) -> Option<Encap> {
    let (mut id, mut remote, mut source, mut checksum) = (0, None, None, false);
    for part in tunnel {
        match part {
            RouteLwTunnelEncap::Ip(part) => match part {
                RouteIpTunnel::Id(n) => id = *n,
                RouteIpTunnel::Destination(ip) => remote = Some(IpAddr::V4(*ip)),
                RouteIpTunnel::Source(ip) => source = Some(IpAddr::V4(*ip)),
                RouteIpTunnel::Flags(flags) => {
                    checksum = flags.contains(RouteIpTunnelFlags::Checksum);
                }
                _ => {}
            },
            RouteLwTunnelEncap::Ip6(part) => match part {
                RouteIp6Tunnel::Id(n) => id = *n,
                RouteIp6Tunnel::Destination(ip) => remote = Some(IpAddr::V6(*ip)),
                RouteIp6Tunnel::Source(ip) => source = Some(IpAddr::V6(*ip)),
                RouteIp6Tunnel::Flags(flags) => {
                    checksum = flags.contains(RouteIp6TunnelFlags::Checksum);
                }
                _ => {}
            },
            _ => {}
        }
    }
    Some(Encap {
        id,
        remote: remote?,
        // The kernel shows an unset source as the unspecified address.
        source: source.filter(|ip| !ip.is_unspecified()),
        checksum,
    })
}
