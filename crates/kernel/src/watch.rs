//! What changes in the namespace, as it changes.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::{AsyncSocket, SocketAddr};

use crate::{Address, Error, Link, Neighbour, NetNs, Route, addr, link, neigh, route};

/// Room for a burst of events; the kernel's default (208 KiB) is full after some 200 links.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Which tables to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchGroups {
    pub links: bool,
    pub addresses: bool,
    pub routes: bool,
    pub neighbours: bool,
}

/// One change. `Set` means added or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    LinkSet(Link),
    LinkDeleted(Link),
    AddressSet(Address),
    AddressDeleted(Address),
    RouteSet(Route),
    RouteDeleted(Route),
    NeighbourSet(Neighbour),
    NeighbourDeleted(Neighbour),
}

/// A subscription to changes.
#[derive(Debug)]
pub struct Watch {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// The connection lives as long as a handle does.
    _handle: rtnetlink::Handle,
}

impl Watch {
    /// Subscribes in the network namespace of the calling thread. Must be called inside a tokio runtime. Whoever
    /// keeps an image should list after subscribing, not before.
    pub fn new(groups: WatchGroups) -> Result<Self, Error> {
        let mut wanted = Vec::new();
        if groups.links {
            wanted.push(MulticastGroup::Link);
        }
        if groups.addresses {
            wanted.extend([MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr]);
        }
        if groups.routes {
            wanted.extend([MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route]);
        }
        if groups.neighbours {
            wanted.push(MulticastGroup::Neigh);
        }
        let failed = |e| Error::io("open", "netlink subscription", e);
        let (mut connection, handle, messages) =
            rtnetlink::new_multicast_connection(&wanted).map_err(failed)?;
        let socket = connection.socket_mut().socket_mut();
        socket.set_rx_buf_sz(RECEIVE_BUFFER).map_err(failed)?;
        tokio::spawn(connection);
        Ok(Self {
            messages,
            _handle: handle,
        })
    }

    /// Subscribes in another network namespace. Must be called inside a tokio runtime.
    pub fn in_namespace(netns: &NetNs, groups: WatchGroups) -> Result<Self, Error> {
        let _inside = netns.enter()?;
        Self::new(groups)
    }

    /// The next change; safe to drop and call again. `None` when the socket is lost, which also happens when events came
    /// faster than they were read: subscribe again and list everything.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let (message, _) = self.messages.next().await?;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => {
                    if let Some(event) = convert(inner) {
                        return Some(event);
                    }
                }
                NetlinkPayload::Overrun(_) => return None,
                _ => {}
            }
        }
    }
}

fn convert(message: RouteNetlinkMessage) -> Option<Event> {
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelNeighbour, DelRoute, NewAddress, NewLink, NewNeighbour, NewRoute,
    };
    match message {
        NewLink(m) => Some(Event::LinkSet(link::convert(m))),
        DelLink(m) => Some(Event::LinkDeleted(link::convert(m))),
        NewAddress(m) => addr::convert(&m).map(Event::AddressSet),
        DelAddress(m) => addr::convert(&m).map(Event::AddressDeleted),
        NewRoute(m) => route::convert(&m).map(Event::RouteSet),
        DelRoute(m) => route::convert(&m).map(Event::RouteDeleted),
        NewNeighbour(m) => neigh::convert(&m).map(Event::NeighbourSet),
        DelNeighbour(m) => neigh::convert(&m).map(Event::NeighbourDeleted),
        _ => None,
    }
}
