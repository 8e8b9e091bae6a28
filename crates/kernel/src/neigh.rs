//! Neighbours: which link-layer address an IP address on a link has.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use crate::{Error, MacAddr, Netlink};

/// An entry of the neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    pub address: IpAddr,
    /// None while it is being asked for, or when nobody answered.
    pub mac: Option<MacAddr>,
    /// Set by hand: never asked for, never aged.
    pub permanent: bool,
}

impl Netlink {
    /// The neighbours on a link (without the entries that the kernel makes for multicast and the like).
    pub async fn neighbours(&self, link: u32) -> Result<Vec<Neighbour>, Error> {
        let answers = self.dump(list_message(link), "neighbours").await?;
        Ok(listed(&answers, link))
    }

    /// Sets a permanent neighbour, in place of any entry of that address.
    pub async fn replace_neighbour(
        &self,
        link: u32,
        address: IpAddr,
        mac: MacAddr,
    ) -> Result<(), Error> {
        self.change(
            RouteNetlinkMessage::NewNeighbour(permanent(link, address, mac)),
            NLM_F_CREATE | NLM_F_REPLACE,
            "set",
            || format!("neighbour {address} ({mac}) on link {link}"),
        )
        .await
    }

    /// Removes a neighbour; it is fine if it is not there.
    pub async fn delete_neighbour(&self, link: u32, address: IpAddr) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelNeighbour(key(link, address));
        self.delete(message, || format!("neighbour {address} on link {link}"))
            .await
    }
}

/// Asks for the neighbours on a link.
pub(crate) fn list_message(link: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(link));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// The neighbours on a link in answers.
pub(crate) fn listed(answers: &[RouteNetlinkMessage], link: u32) -> Vec<Neighbour> {
    let neighbours = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) => convert(message),
        _ => None,
    });
    neighbours
        .filter(|neighbour| neighbour.link == link)
        .collect()
}

/// Sets a permanent neighbour.
pub(crate) fn permanent(link: u32, address: IpAddr, mac: MacAddr) -> NeighbourMessage {
    let mut message = key(link, address);
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

fn key(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = crate::netlink::family(address);
    message.header.ifindex = link;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }));
    message
}

pub(crate) fn convert(message: &NeighbourMessage) -> Option<Neighbour> {
    // Such entries are the kernel's own cache of "no address needed".
    if message.header.state == NeighbourState::Noarp {
        return None;
    }
    let mut neighbour = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                neighbour = Some(IpAddr::V4(*ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                neighbour = Some(IpAddr::V6(*ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = MacAddr::from_bytes(bytes),
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        address: neighbour?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}
