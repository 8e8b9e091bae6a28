//! Routes, including those that say how to encapsulate (lightweight tunnels, ip-route(8) "encap ip").

mod message;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Error, Netlink};

pub(crate) use message::{convert, routes_message};
use message::{filter, to};

/// The main routing table.
pub const TABLE_MAIN: u32 = 254;
/// Where the kernel keeps the routes of the node's own addresses.
pub(crate) const TABLE_LOCAL: u32 = 255;

/// A route with one next hop (or none).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub destination: IpNetwork,
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing link.
    pub link: Option<u32>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    pub scope: Scope,
    pub kind: RouteKind,
    pub table: u32,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
    pub metric: Option<u32>,
    /// The gateway is taken to be on the link without a route saying so.
    pub onlink: bool,
    pub encap: Option<Encap>,
    /// The largest packet that its destinations can be reached with (`RTAX_MTU`), when the link's MTU is not the answer.
    pub mtu: Option<u32>,
}

impl Route {
    /// A unicast route of the main table; the other fields empty, scope global.
    pub fn new(destination: IpNetwork, protocol: u8) -> Self {
        Self {
            destination,
            gateway: None,
            link: None,
            source: None,
            scope: Scope::Global,
            kind: RouteKind::Unicast,
            table: TABLE_MAIN,
            protocol,
            metric: None,
            onlink: false,
            encap: None,
            mtu: None,
        }
    }
}

/// Where a tunnel device in external mode sends the packets of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encap {
    /// The tunnel's id: the VNI.
    pub id: u64,
    /// The outer destination address.
    pub remote: IpAddr,
    /// The outer source address; if it is not given, whatever leads to `remote` by the node's routes.
    pub source: Option<IpAddr>,
    /// The outer UDP header has a checksum. IPv6 receivers want one (RFC 6935 is an exception that they have to be
    /// told of), IPv4 ones do not.
    pub checksum: bool,
}

impl Encap {
    /// With a source that the kernel chooses, and a checksum where receivers want one.
    pub fn new(id: u64, remote: IpAddr) -> Self {
        Self {
            id,
            remote,
            source: None,
            checksum: remote.is_ipv6(),
        }
    }
}

/// How far a route or an address reaches (`rtm_scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Global,
    Site,
    Link,
    Host,
    Nowhere,
    Other(u8),
}

impl From<u8> for Scope {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Global,
            200 => Self::Site,
            253 => Self::Link,
            254 => Self::Host,
            255 => Self::Nowhere,
            other => Self::Other(other),
        }
    }
}

impl From<Scope> for u8 {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => 0,
            Scope::Site => 200,
            Scope::Link => 253,
            Scope::Host => 254,
            Scope::Nowhere => 255,
            Scope::Other(other) => other,
        }
    }
}

/// What happens to packets of a route (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    Unicast,
    Local,
    Blackhole,
    Unreachable,
    Prohibit,
    Other(u8),
}

impl From<u8> for RouteKind {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            other => Self::Other(other),
        }
    }
}

impl From<RouteKind> for u8 {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => 1,
            RouteKind::Local => 2,
            RouteKind::Blackhole => 6,
            RouteKind::Unreachable => 7,
            RouteKind::Prohibit => 8,
            RouteKind::Other(other) => other,
        }
    }
}

/// Which routes to list; what is `None` does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFilter {
    pub table: Option<u32>,
    pub protocol: Option<u8>,
    pub link: Option<u32>,
}

impl RouteFilter {
    fn selects(&self, route: &Route) -> bool {
        self.table.is_none_or(|table| route.table == table)
            && self.protocol.is_none_or(|p| route.protocol == p)
            && self.link.is_none_or(|link| route.link == Some(link))
    }
}

/// Asks for the routes of each family that a filter selects.
pub(crate) fn list_messages(wanted: RouteFilter) -> [RouteNetlinkMessage; 2] {
    [AddressFamily::Inet, AddressFamily::Inet6]
        .map(|family| RouteNetlinkMessage::GetRoute(filter(family, wanted)))
}

/// The routes in what the kernel answered, as far as a filter selects them.
pub(crate) fn listed(
    answers: Result<Vec<RouteNetlinkMessage>, Error>,
    wanted: RouteFilter,
) -> Result<Vec<Route>, Error> {
    let answers = match answers {
        // A table that has never had a route does not exist for the kernel.
        Err(error) if wanted.table.is_some() && error.is_absent() => Vec::new(),
        other => other?,
    };
    let routes = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(message) => convert(message),
        _ => None,
    });
    Ok(routes.filter(|route| wanted.selects(route)).collect())
}

impl Netlink {
    /// The routes of both families that a filter selects. The kernel does the selecting.
    pub async fn routes(&self, wanted: RouteFilter) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for request in list_messages(wanted) {
            routes.extend(listed(self.dump(request, "routes").await, wanted)?);
        }
        Ok(routes)
    }

    /// The route that a packet of this node to an address takes; `None` if there is none.
    pub async fn route_to(&self, destination: IpAddr) -> Result<Option<Route>, Error> {
        let request = RouteNetlinkMessage::GetRoute(to(destination));
        let answer = self
            .get(request, "look up", || format!("route to {destination}"))
            .await;
        match answer {
            Ok(Some(RouteNetlinkMessage::NewRoute(message))) => Ok(convert(&message)),
            Ok(_) => Ok(None),
            Err(error) if error.is_unreachable() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a route; fails if there is one to that destination with that metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), Error> {
        self.new_route(route, NLM_F_CREATE | NLM_F_EXCL, "add")
            .await
    }

    /// Adds a route, or puts it atomically in place of the one to that destination.
    pub async fn replace_route(&self, route: &Route) -> Result<(), Error> {
        self.new_route(route, NLM_F_CREATE | NLM_F_REPLACE, "set")
            .await
    }

    async fn new_route(
        &self,
        route: &Route,
        flags: u16,
        operation: &'static str,
    ) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(routes_message(route));
        self.change(message, flags, operation, || format!("route {route}"))
            .await
    }

    /// Removes a route; it is fine if it is not there.
    pub async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRoute(routes_message(route));
        self.delete(message, || format!("route {route}")).await
    }
}

impl std::fmt::Display for Encap {
    /// Much as ip-route(8) writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "id {}", self.id)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        write!(f, " dst {}", self.remote)
    }
}

impl std::fmt::Display for Route {
    /// Much as ip-route(8) writes it, with the link's index.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(encap) = self.encap {
            write!(f, " encap {encap}")?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " dev #{link}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        Ok(())
    }
}
