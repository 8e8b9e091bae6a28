//! Packets as bytes, and what a captured one is evidence of.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use seaway_model::{Packet, Protocol};

/// Time to live of what is sent: a packet that still has it has not passed the node.
const TTL: u8 = 64;
const MARK: &[u8; 6] = b"seaway";

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    Left { from: IpAddr, to: SocketAddr },
    Refused,
}

/// What a packet from this source port carries, so that it is known again after translation.
pub(crate) fn payload(port: u16) -> Vec<u8> {
    let mut payload = MARK.to_vec();
    payload.extend(port.to_be_bytes());
    payload
}

/// The first packet of a flow from this source port, which it carries along.
pub(crate) fn write(packet: &Packet, port: u16) -> Vec<u8> {
    let payload = payload(port);
    let builder = match (packet.source, packet.destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        _ => panic!("{packet:?}: two families"),
    };
    let to = packet.destination.port();
    let mut bytes = Vec::new();
    match packet.protocol {
        Protocol::Tcp => builder
            .tcp(port, to, 1, 1024)
            .syn()
            .write(&mut bytes, &payload)
            .unwrap(),
        Protocol::Udp => builder.udp(port, to).write(&mut bytes, &payload).unwrap(),
        Protocol::Sctp => builder
            .write(&mut bytes, IpNumber::SCTP, &init(port, to, &payload))
            .unwrap(),
    }
    bytes
}

/// Where an SCTP packet has its first chunk, and where ours has what it carries: in a parameter that nobody knows.
const CHUNK: usize = 12;
const CARRIED: usize = CHUNK + 20 + 4;

/// The first packet of an SCTP association: a chunk INIT (RFC 9260).
fn init(port: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [port.to_be_bytes(), to.to_be_bytes()].concat();
    // Tag and checksum of the packet.
    bytes.extend([0; 8]);
    let length = u16::try_from(CARRIED - CHUNK + payload.len()).unwrap();
    bytes.extend([1, 0]);
    bytes.extend(length.to_be_bytes());
    // Tag, window, streams out and in, first number.
    bytes.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    // A parameter that is skipped in silence.
    bytes.extend(0x8fff_u16.to_be_bytes());
    bytes.extend(u16::try_from(4 + payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    let sum = crc32c(&bytes);
    bytes[8..CHUNK].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let divides = sum & 1 != 0;
            sum >>= 1;
            if divides {
                sum ^= 0x82f6_3b78;
            }
        }
    }
    !sum
}

/// The source port of a sent packet, and what the captured one says of it. `forwarded`: only what has passed a node
/// counts as having left it.
pub(crate) fn read(bytes: &[u8], forwarded: bool) -> Option<(u16, Evidence)> {
    let packet = SlicedPacket::from_ip(bytes).ok()?;
    let net = packet.net.as_ref()?;
    let (from, to, ttl): (IpAddr, IpAddr, u8) = match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.ttl(),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.hop_limit(),
            )
        }
        NetSlice::Arp(_) => return None,
    };
    let left = |port, payload: &[u8]| {
        let sent_from = payload.strip_prefix(MARK)?;
        let sent_from = u16::from_be_bytes(sent_from.try_into().ok()?);
        let to = SocketAddr::new(to, port);
        (!forwarded || ttl < TTL).then_some((sent_from, Evidence::Left { from, to }))
    };
    let Some(transport) = packet.transport else {
        let ip = net
            .ip_payload_ref()
            .filter(|ip| ip.ip_number == IpNumber::SCTP)?;
        let port = u16::from_be_bytes(ip.payload.get(2..4)?.try_into().ok()?);
        return left(port, ip.payload.get(CARRIED..)?);
    };
    match transport {
        TransportSlice::Tcp(tcp) if tcp.rst() => Some((tcp.destination_port(), Evidence::Refused)),
        // Of a socket, which sends nothing along and keeps its port.
        TransportSlice::Tcp(tcp) if !forwarded && tcp.payload().is_empty() => {
            left(tcp.destination_port(), &payload(tcp.source_port()))
        }
        TransportSlice::Tcp(tcp) => left(tcp.destination_port(), tcp.payload()),
        TransportSlice::Udp(udp) => left(udp.destination_port(), udp.payload()),
        // Both kinds have the offending packet behind eight bytes.
        TransportSlice::Icmpv4(icmp) if icmp.type_u8() == 3 => refused(icmp.slice().get(8..)?),
        TransportSlice::Icmpv6(icmp) if icmp.type_u8() == 1 => refused(icmp.slice().get(8..)?),
        _ => None,
    }
}

/// The source port of the packet that an ICMP error quotes.
fn refused(quoted: &[u8]) -> Option<(u16, Evidence)> {
    let header = match quoted.first()? >> 4 {
        4 => usize::from(quoted.first()? & 0x0f) * 4,
        _ => 40,
    };
    let port = quoted.get(header..header + 2)?;
    Some((u16::from_be_bytes(port.try_into().ok()?), Evidence::Refused))
}
