//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use crate::route::Scope;
use crate::{Error, Netlink};

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address with its prefix length.
    pub network: IpNetwork,
    pub scope: Scope,
}

impl Netlink {
    /// The addresses of one link, or of all.
    pub async fn addresses(&self, link: Option<u32>) -> Result<Vec<Address>, Error> {
        let answers = self.dump(list_message(link), "addresses").await?;
        Ok(listed(&answers, link))
    }

    /// Adds an address to a link. For IPv6 ones duplicate address detection is left out, since every address that we set
    /// is allocated; what is sent to them is received as soon as a worker of the kernel has made their route.
    pub async fn add_address(
        &self,
        link: u32,
        network: IpNetwork,
        scope: Scope,
    ) -> Result<(), Error> {
        let address = Address {
            link,
            network,
            scope,
        };
        let message = message(address, false);
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
            "add",
            || format!("address {network} to link {link}"),
        )
        .await
    }

    /// Removes an address; it is fine if it is not there.
    pub async fn delete_address(&self, address: &Address) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(message(*address, false));
        self.delete(message, || {
            format!("address {} of link {}", address.network, address.link)
        })
        .await
    }
}

/// Asks for the addresses of a link, or of all.
pub(crate) fn list_message(link: Option<u32>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.unwrap_or(0);
    RouteNetlinkMessage::GetAddress(message)
}

/// The addresses of a link, or of all, in answers.
pub(crate) fn listed(answers: &[RouteNetlinkMessage], link: Option<u32>) -> Vec<Address> {
    let addresses = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => convert(message),
        _ => None,
    });
    addresses
        .filter(|address| link.is_none_or(|index| address.link == index))
        .collect()
}

/// Adds or deletes an address; with `own_routes` the kernel makes no route to the prefix.
pub(crate) fn message(address: Address, own_routes: bool) -> AddressMessage {
    let ip = address.network.ip();
    let prefix = address.network.prefix();
    let mut message = AddressMessage::default();
    message.header.family = crate::netlink::family(ip);
    message.header.index = address.link;
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::from(u8::from(address.scope));
    message.attributes = vec![AddressAttribute::Address(ip), AddressAttribute::Local(ip)];
    let mut flags = AddressFlags::empty();
    if own_routes {
        flags |= AddressFlags::Noprefixroute;
    }
    match ip {
        IpAddr::V4(ip) if prefix < 31 => {
            let broadcast = u32::from(ip) | (u32::MAX >> prefix);
            let broadcast = Ipv4Addr::from(broadcast);
            message
                .attributes
                .push(AddressAttribute::Broadcast(broadcast));
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => flags |= AddressFlags::Nodad,
    }
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}

pub(crate) fn convert(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL ours; IPv6 has IFA_ADDRESS only.
    let pick = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let ip = pick(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    })
    .or_else(|| {
        pick(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    Some(Address {
        link: message.header.index,
        network: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        scope: Scope::from(u8::from(message.header.scope)),
    })
}
