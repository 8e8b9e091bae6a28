//! The messages of ctnetlink (linux/netfilter/nfnetlink_conntrack.h) as bytes.
//!
//! Numbers are big-endian where the kernel's attribute is; attributes and messages are aligned to four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer};

use super::{DEFAULT_ZONE, Family, Filter, Flow, Status, TcpState, Tuple};
use crate::netlink::message::{Message, attributes};

/// `NFNL_SUBSYS_CTNETLINK << 8`, to which the kind of message is added.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`: what the kernel answers.
pub(super) const ENTRY: u16 = SUBSYSTEM;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
pub(super) const DELETE: u16 = SUBSYSTEM | 2;

/// `struct nfgenmsg`: family, version, resource.
const SUBHEADER: usize = 4;

/// `enum ctattr_type`.
pub(super) mod entry {
    pub(in crate::conntrack) const ORIGINAL: u16 = 1;
    pub(in crate::conntrack) const REPLY: u16 = 2;
    pub(in crate::conntrack) const STATUS: u16 = 3;
    pub(in crate::conntrack) const PROTOCOL_INFO: u16 = 4;
    pub(in crate::conntrack) const SOURCE_NAT: u16 = 6;
    pub(in crate::conntrack) const TIMEOUT: u16 = 7;
    pub(super) const MARK: u16 = 8;
    pub(super) const ID: u16 = 12;
    pub(in crate::conntrack) const DESTINATION_NAT: u16 = 13;
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
    pub(super) const STATUS_MASK: u16 = 26;
}

/// `enum ctattr_tuple`.
mod tuple {
    pub(super) const IP: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    /// Where the zone holds for one direction only.
    pub(super) const ZONE: u16 = 3;
}

/// `enum ctattr_ip`.
mod ip {
    pub(super) const V4_SOURCE: u16 = 1;
    pub(super) const V4_DESTINATION: u16 = 2;
    pub(super) const V6_SOURCE: u16 = 3;
    pub(super) const V6_DESTINATION: u16 = 4;
}

/// `enum ctattr_l4proto`.
mod protocol {
    pub(super) const NUMBER: u16 = 1;
    pub(super) const SOURCE_PORT: u16 = 2;
    pub(super) const DESTINATION_PORT: u16 = 3;
}

/// `enum ctattr_protoinfo` and `enum ctattr_protoinfo_tcp`.
pub(super) mod info {
    pub(in crate::conntrack) const TCP: u16 = 1;
    pub(in crate::conntrack) const TCP_STATE: u16 = 1;
    pub(in crate::conntrack) const TCP_FLAGS_ORIGINAL: u16 = 4;
    pub(in crate::conntrack) const TCP_FLAGS_REPLY: u16 = 5;
}

/// `CTA_FILTER_ORIG_FLAGS`, and which parts of the original tuple it tells the kernel to compare
/// (net/netfilter/nf_internals.h).
mod filter {
    pub(super) const ORIGINAL_FLAGS: u16 = 1;
    pub(super) const DESTINATION: u32 = 1 << 1;
    pub(super) const PROTOCOL: u32 = 1 << 3;
    pub(super) const DESTINATION_PORT: u32 = 1 << 5;
}

/// Asks for every entry that the filter selects.
pub(super) fn list_request(wanted: &Filter, sequence: u32) -> Vec<u8> {
    let mut message = Message::of_flows(GET, NLM_F_REQUEST | NLM_F_DUMP, sequence, wanted.family);
    let mut flags = filter::PROTOCOL;
    message.nested(entry::ORIGINAL, |message| {
        // Of IPv6 the kernel (6.18 still) compares addresses the wrong way round: it would leave out exactly those. It
        // is asked for the port alone.
        if let Some(ip @ IpAddr::V4(_)) = wanted.destination {
            flags |= filter::DESTINATION;
            message.nested(tuple::IP, |message| message.destination(ip));
        }
        message.nested(tuple::PROTOCOL, |message| {
            message.put(protocol::NUMBER, &[wanted.protocol]);
            if let Some(port) = wanted.destination_port {
                flags |= filter::DESTINATION_PORT;
                message.put(protocol::DESTINATION_PORT, &port.to_be_bytes());
            }
        });
    });
    message.nested(entry::FILTER, |message| {
        // The one number of this protocol in the machine's own order.
        message.put(filter::ORIGINAL_FLAGS, &flags.to_ne_bytes());
    });
    // A mask without bits is refused.
    if wanted.status != Status::default() {
        let bits = wanted.status.0.to_be_bytes();
        message.put(entry::STATUS, &bits);
        message.put(entry::STATUS_MASK, &bits);
    }
    message.zone(wanted.zone);
    message.finish()
}

/// Asks to delete one entry. It always names the entry: without a tuple the kernel would flush the table. By its
/// reply direction, because that says where it is translated to: a later entry of the same client that leads elsewhere
/// is another one. The id alone does not tell them apart: it is a hash of the original direction and of where the entry
/// lies in memory, which may be where the first one lay. (It does tell apart a flow the other way round.)
pub(super) fn delete_request(flow: &Flow, sequence: u32) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = Message::of_flows(DELETE, flags, sequence, flow.family());
    message.tuple(entry::REPLY, flow.protocol, &flow.reply);
    message.zone(flow.zone);
    message.put(entry::ID, &flow.id.to_be_bytes());
    message.finish()
}

/// The entry in a message; `None` for anything else, and for entries that lack what every one of an IP protocol has.
pub(super) fn read_flow(message: &NetlinkBuffer<&[u8]>) -> Option<Flow> {
    if message.message_type() != ENTRY {
        return None;
    }
    let (mut original, mut reply) = (None, None);
    let (mut status, mut mark, mut zone, mut id) = (Status::default(), 0, 0, 0);
    let mut tcp = None;
    for attribute in attributes(message.payload().get(SUBHEADER..)?) {
        let value = attribute.value();
        match attribute.kind() {
            entry::ORIGINAL => original = Some(read_tuple(value)?),
            entry::REPLY => reply = Some(read_tuple(value)?),
            entry::STATUS => status = Status(u32::from_be_bytes(value.try_into().ok()?)),
            entry::PROTOCOL_INFO => tcp = read_tcp_state(value),
            entry::MARK => mark = u32::from_be_bytes(value.try_into().ok()?),
            entry::ZONE => zone = u16::from_be_bytes(value.try_into().ok()?),
            entry::ID => id = u32::from_be_bytes(value.try_into().ok()?),
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    // Address translation stays within a family.
    let family = |tuple: &ReadTuple| Family::of(tuple.addresses.source.ip());
    (family(&original) == family(&reply)).then_some(())?;
    Some(Flow {
        protocol: original.protocol,
        original: original.addresses,
        reply: reply.addresses,
        status,
        tcp,
        mark,
        zone: [zone, original.zone, reply.zone]
            .into_iter()
            .find(|zone| *zone != DEFAULT_ZONE)
            .unwrap_or_default(),
        id,
    })
}

struct ReadTuple {
    protocol: u8,
    addresses: Tuple,
    zone: u16,
}

fn read_tuple(bytes: &[u8]) -> Option<ReadTuple> {
    let (mut source, mut destination): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let (mut source_port, mut destination_port) = (0, 0);
    let (mut number, mut zone) = (None, 0);
    for attribute in attributes(bytes) {
        match attribute.kind() {
            tuple::IP => {
                for attribute in attributes(attribute.value()) {
                    let address = read_address(attribute.value());
                    match attribute.kind() {
                        ip::V4_SOURCE | ip::V6_SOURCE => source = address,
                        ip::V4_DESTINATION | ip::V6_DESTINATION => destination = address,
                        _ => {}
                    }
                }
            }
            tuple::PROTOCOL => {
                for attribute in attributes(attribute.value()) {
                    let value = attribute.value();
                    match attribute.kind() {
                        protocol::NUMBER => number = value.first().copied(),
                        protocol::SOURCE_PORT => source_port = read_port(value)?,
                        protocol::DESTINATION_PORT => destination_port = read_port(value)?,
                        _ => {}
                    }
                }
            }
            tuple::ZONE => zone = read_port(attribute.value())?,
            _ => {}
        }
    }
    let (source, destination) = (source?, destination?);
    (source.is_ipv4() == destination.is_ipv4()).then_some(())?;
    Some(ReadTuple {
        protocol: number?,
        addresses: Tuple {
            source: SocketAddr::new(source, source_port),
            destination: SocketAddr::new(destination, destination_port),
        },
        zone,
    })
}

fn read_tcp_state(bytes: &[u8]) -> Option<TcpState> {
    let of_tcp = attributes(bytes).find(|attribute| attribute.kind() == info::TCP)?;
    let state = attributes(of_tcp.value()).find(|attribute| attribute.kind() == info::TCP_STATE)?;
    TcpState::of(*state.value().first()?)
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn read_port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

impl Message {
    /// About entries of a family (`struct nfgenmsg`).
    pub(super) fn of_flows(kind: u16, flags: u16, sequence: u32, family: Family) -> Self {
        let mut message = Self::new(kind, flags, sequence);
        let family = match family {
            Family::V4 => nix::libc::AF_INET,
            Family::V6 => nix::libc::AF_INET6,
        };
        message.raw(&[family.to_le_bytes()[0], 0, 0, 0]);
        message
    }

    /// Writes a direction in full.
    pub(super) fn tuple(&mut self, kind: u16, number: u8, addresses: &Tuple) {
        let Tuple {
            source,
            destination,
        } = addresses;
        self.nested(kind, |message| {
            message.nested(tuple::IP, |message| {
                match source.ip() {
                    IpAddr::V4(source) => message.put(ip::V4_SOURCE, &source.octets()),
                    IpAddr::V6(source) => message.put(ip::V6_SOURCE, &source.octets()),
                }
                message.destination(destination.ip());
            });
            message.nested(tuple::PROTOCOL, |message| {
                message.put(protocol::NUMBER, &[number]);
                message.put(protocol::SOURCE_PORT, &source.port().to_be_bytes());
                message.put(
                    protocol::DESTINATION_PORT,
                    &destination.port().to_be_bytes(),
                );
            });
        });
    }

    /// The default one is not named: a kernel that was built without zones refuses to hear of any.
    fn zone(&mut self, zone: u16) {
        if zone != DEFAULT_ZONE {
            self.put(entry::ZONE, &zone.to_be_bytes());
        }
    }

    fn destination(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.put(ip::V4_DESTINATION, &address.octets()),
            IpAddr::V6(address) => self.put(ip::V6_DESTINATION, &address.octets()),
        }
    }
}

/// What the kernel answers for an entry.
#[cfg(test)]
pub(super) fn entry_message(flow: &Flow, sequence: u32) -> Vec<u8> {
    let mut message = Message::of_flows(ENTRY, 0, sequence, flow.family());
    message.tuple(entry::ORIGINAL, flow.protocol, &flow.original);
    message.tuple(entry::REPLY, flow.protocol, &flow.reply);
    message.put(entry::STATUS, &flow.status.0.to_be_bytes());
    if let Some(state) = flow.tcp {
        message.nested(entry::PROTOCOL_INFO, |message| {
            message.nested(info::TCP, |message| {
                message.put(info::TCP_STATE, &[state as u8]);
            });
        });
    }
    message.put(entry::MARK, &flow.mark.to_be_bytes());
    message.zone(flow.zone);
    message.put(entry::ID, &flow.id.to_be_bytes());
    message.finish()
}
