//! Links, addresses, routes and neighbours without a runtime: several changes in one system call, and one answer to all
//! of them. For a program that has to be done within milliseconds; daemons use [`Netlink`](crate::Netlink).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, LinkAttribute, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteMetric};
use nix::sys::socket::SockProtocol;
use rtnetlink::LinkUnspec;

use crate::netlink::blocking::{Blocking, End, each_message, read_end};
use crate::netlink::message::Message;
use crate::netlink::{DUMP_ATTEMPTS, Failure};
use crate::{
    Address, Error, Link, MacAddr, Neighbour, NetNs, Route, RouteFilter, Scope, VethOptions, addr,
    link, neigh, route,
};

/// Changes in order. The kernel does not stop at one that fails.
#[derive(Debug, Default)]
pub struct Batch {
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    body: Body,
    flags: u16,
    operation: &'static str,
    object: String,
    /// An answer that is no failure.
    tolerated: fn(&Error) -> bool,
}

/// Nothing is.
fn nothing(_: &Error) -> bool {
    false
}

#[derive(Debug)]
enum Body {
    Known(RouteNetlinkMessage),
    /// Kind of message, and what follows the header.
    Bytes(u16, Vec<u8>),
}

/// Settings of a link's IPv4 side (`/proc/sys/net/ipv4/conf/LINK`); what is zero stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ipv4Settings {
    /// 1: what comes from an address that is not routed there is dropped (RFC 3704).
    pub rp_filter: u32,
    /// 1: loopback addresses are not taken for martians.
    pub route_localnet: u32,
}

/// What a route says of the connections over it; what is `None` is the kernel's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteMetrics {
    pub mtu: Option<u32>,
    /// The segment size that is advertised to the other end.
    pub advmss: Option<u32>,
}

impl Batch {
    /// A veth pair: `name` here, `peer` here or where the options say.
    pub fn add_veth(&mut self, name: &str, peer: &str, options: VethOptions<'_>) {
        let message = link::veth_message(name, peer, options);
        self.push(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            "create",
            format!("veth pair {name} and {peer}"),
        );
    }

    /// Keeps the kernel from giving a link an IPv6 address of its own when it is set up. A link of the node to one pod needs
    /// none, and without one nothing is sent over it that keeps hold of it: the kernel waits twice as long when such a link
    /// is deleted. Where there is no IPv6, there is nothing to do.
    pub fn no_own_ipv6_address(&mut self, name: &str) {
        let mut message = LinkUnspec::new_with_name(name).build();
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let inet6 = AfSpecUnspec::Inet6(vec![mode]);
        message
            .attributes
            .push(LinkAttribute::AfSpecUnspec(vec![inet6]));
        self.push(
            RouteNetlinkMessage::SetLink(message),
            0,
            "set up IPv6 of",
            format!("link {name}"),
        );
        self.tolerate(Error::is_unsupported_family);
    }

    /// Sets a link up, with settings of its IPv4 side.
    pub fn set_up(&mut self, name: &str, settings: Ipv4Settings) {
        let mut message = LinkUnspec::new_with_name(name).up().build();
        if settings != Ipv4Settings::default() {
            let mut conf = InetDevConf::default();
            conf.rp_filter = settings.rp_filter.cast_signed();
            conf.route_localnet = settings.route_localnet.cast_signed();
            let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
            message
                .attributes
                .push(LinkAttribute::AfSpecUnspec(vec![inet]));
        }
        self.push(
            RouteNetlinkMessage::SetLink(message),
            0,
            "set up",
            format!("link {name}"),
        );
    }

    /// As [`Netlink::add_address`](crate::Netlink::add_address); with `own_routes` the kernel makes no route to the
    /// prefix.
    pub fn add_address(&mut self, link: u32, network: IpNetwork, scope: Scope, own_routes: bool) {
        let address = Address {
            link,
            network,
            scope,
        };
        self.push(
            RouteNetlinkMessage::NewAddress(addr::message(address, own_routes)),
            NLM_F_CREATE | NLM_F_EXCL,
            "add",
            format!("address {network} to link {link}"),
        );
    }

    /// Sets a permanent neighbour, in place of any entry of that address.
    pub fn replace_neighbour(&mut self, link: u32, address: IpAddr, mac: MacAddr) {
        self.push(
            RouteNetlinkMessage::NewNeighbour(neigh::permanent(link, address, mac)),
            NLM_F_CREATE | NLM_F_REPLACE,
            "set",
            format!("neighbour {address} ({mac}) on link {link}"),
        );
    }

    /// Adds a route; fails if there is one to that destination with that metric.
    pub fn add_route(&mut self, wanted: &Route, metrics: RouteMetrics) {
        let mut message = route::routes_message(wanted);
        let metrics: Vec<_> = [
            metrics.mtu.map(RouteMetric::Mtu),
            metrics.advmss.map(RouteMetric::Advmss),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        self.push(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
            "add",
            format!("route {wanted}"),
        );
    }

    /// Adds a route, or puts it atomically in place of the one to that destination.
    pub fn replace_route(&mut self, wanted: &Route) {
        self.push(
            RouteNetlinkMessage::NewRoute(route::routes_message(wanted)),
            NLM_F_CREATE | NLM_F_REPLACE,
            "set",
            format!("route {wanted}"),
        );
    }

    /// Deletes a link (a veth with its peer); it is fine if there is none.
    pub fn delete_link(&mut self, name: &str) {
        let message = LinkUnspec::new_with_name(name).build();
        self.push(
            RouteNetlinkMessage::DelLink(message),
            0,
            "delete",
            format!("link {name}"),
        );
        self.tolerate(Error::is_absent);
    }

    /// Deletes all links of a group at once, which takes the kernel as long as to delete one. The number must be
    /// nobody else's.
    pub fn delete_link_group(&mut self, group: u32) {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        self.push(
            RouteNetlinkMessage::DelLink(message),
            0,
            "delete",
            format!("links of group {group}"),
        );
        self.tolerate(Error::is_absent);
    }

    /// A request of another module's, as kind of message and what follows the header.
    pub(crate) fn bytes(
        &mut self,
        kind: u16,
        flags: u16,
        body: Vec<u8>,
        operation: &'static str,
        object: String,
    ) {
        self.requests.push(Request {
            body: Body::Bytes(kind, body),
            flags,
            operation,
            object,
            tolerated: nothing,
        });
    }

    pub(crate) fn push(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: &'static str,
        object: String,
    ) {
        self.requests.push(Request {
            body: Body::Known(message),
            flags,
            operation,
            object,
            tolerated: nothing,
        });
    }

    pub(crate) fn tolerate(&mut self, tolerated: fn(&Error) -> bool) {
        if let Some(request) = self.requests.last_mut() {
            request.tolerated = tolerated;
        }
    }
}

impl Request {
    fn write(&self, flags: u16, sequence: u32, bytes: &mut Vec<u8>) {
        let flags = NLM_F_REQUEST | self.flags | flags;
        match &self.body {
            Body::Known(message) => write_message(message.clone(), flags, sequence, bytes),
            Body::Bytes(kind, body) => {
                let mut message = Message::new(*kind, flags, sequence);
                message.raw(body);
                bytes.extend(message.finish());
            }
        }
    }
}

fn write_message(inner: RouteNetlinkMessage, flags: u16, sequence: u32, bytes: &mut Vec<u8>) {
    let mut message = NetlinkMessage::from(inner);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// A route netlink socket (rtnetlink(7)) of one network namespace, whose calls block.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Blocking,
}

impl RouteSocket {
    /// Of the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = Blocking::open(SockProtocol::NetlinkRoute, "netlink socket")?;
        socket.check_strictly()?;
        Ok(Self { socket })
    }

    /// Of another namespace, whatever thread uses it.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, Error> {
        let _inside = netns.enter()?;
        Self::open()
    }

    pub(crate) fn blocking(&mut self) -> &mut Blocking {
        &mut self.socket
    }

    /// Makes all the changes.
    ///
    /// # Errors
    ///
    /// The first that failed. Those behind it were tried nevertheless: they stand, or failed too.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), Error> {
        let Some((last, requests)) = batch.requests.split_last() else {
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(256 * batch.requests.len());
        let first = self.socket.next_sequence();
        let mut sequence = first;
        for request in requests {
            // The kernel answers such a request only when it fails.
            request.write(0, sequence, &mut bytes);
            sequence = self.socket.next_sequence();
        }
        last.write(NLM_F_ACK, sequence, &mut bytes);
        let named = |failure: Failure| failure.into_error(last.operation, last.object.clone());
        self.socket.send(&bytes).map_err(named)?;
        let mut failed = None;
        loop {
            let mut done = false;
            let portion = self.socket.receive().map_err(named)?;
            each_message(portion, |message| {
                let number = message.sequence_number().wrapping_sub(first) as usize;
                let Some(request) = batch.requests.get(number) else {
                    return;
                };
                done |= number + 1 == batch.requests.len();
                if let End::Refused(cause) = read_end(message) {
                    let error = Failure::Refused(cause)
                        .into_error(request.operation, request.object.clone());
                    if !(request.tolerated)(&error) && failed.is_none() {
                        failed = Some(error);
                    }
                }
            })
            .map_err(|reason| named(Failure::Protocol(reason.into())))?;
            if done {
                return failed.map_or(Ok(()), Err);
            }
        }
    }

    /// The link of that name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let message = LinkUnspec::new_with_name(name).build();
        self.look_up(message, || format!("link {name}"))
    }

    /// The link of that index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let message = LinkUnspec::new_with_index(index).build();
        self.look_up(message, || format!("link {index}"))
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        Ok(self
            .dump(&request, "links")?
            .into_iter()
            .filter_map(link::link_of)
            .collect())
    }

    /// The addresses of a link.
    pub fn addresses(&mut self, link: u32) -> Result<Vec<Address>, Error> {
        let answers = self.dump(&addr::list_message(Some(link)), "addresses")?;
        Ok(addr::listed(&answers, Some(link)))
    }

    /// The routes of both families that a filter selects.
    pub fn routes(&mut self, wanted: RouteFilter) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for request in route::list_messages(wanted) {
            routes.extend(route::listed(self.dump(&request, "routes"), wanted)?);
        }
        Ok(routes)
    }

    /// The neighbours on a link.
    pub fn neighbours(&mut self, link: u32) -> Result<Vec<Neighbour>, Error> {
        let answers = self.dump(&neigh::list_message(link), "neighbours")?;
        Ok(neigh::listed(&answers, link))
    }

    fn look_up(
        &mut self,
        message: LinkMessage,
        object: impl Fn() -> String,
    ) -> Result<Option<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(message);
        match self.ask(&request, 0) {
            Ok((answers, _)) => Ok(answers.into_iter().find_map(link::link_of)),
            Err(failure) => match failure.into_error("look up", object()) {
                error if error.is_absent() => Ok(None),
                error => Err(error),
            },
        }
    }

    pub(crate) fn dump(
        &mut self,
        request: &RouteNetlinkMessage,
        object: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let (answers, interrupted) = self
                .ask(request, NLM_F_DUMP)
                .map_err(|failure| failure.into_error("list", object.into()))?;
            if !interrupted {
                return Ok(answers);
            }
        }
        let reason = "the table changed during each of several dumps".into();
        Err(Failure::Protocol(reason).into_error("list", object.into()))
    }

    /// The answers to a question, and whether the table changed meanwhile.
    fn ask(
        &mut self,
        request: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Failure> {
        let sequence = self.socket.next_sequence();
        let mut bytes = Vec::with_capacity(128);
        // One object comes without an end: the acknowledgement is it.
        let end = if flags == 0 { NLM_F_ACK } else { 0 };
        write_message(
            request.clone(),
            NLM_F_REQUEST | flags | end,
            sequence,
            &mut bytes,
        );
        let mut answers = Vec::new();
        let interrupted = self.socket.ask(&bytes, |message| {
            if let Ok(NetlinkMessage {
                payload: NetlinkPayload::InnerMessage(inner),
                ..
            }) = NetlinkMessage::deserialize(message.clone().into_inner())
            {
                answers.push(inner);
            }
        })?;
        Ok((answers, interrupted))
    }
}
