//! Ethernet frames, written and read by etherparse: an implementation that is not ours. Whatever is read has checksums
//! that were computed anew, in full.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Icmpv4Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// Length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
/// Hops of everything that is sent.
pub(crate) const HOPS: u8 = 64;

pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
/// The sequence number of every segment.
const SEQUENCE: u32 = 1;

/// A segment or datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Flags of a segment; a datagram has none.
    pub(crate) tcp: Option<u8>,
    pub(crate) hops: u8,
}

impl Shape {
    /// As a client sends it first.
    pub(crate) fn first(from: SocketAddr, to: SocketAddr, tcp: bool) -> Self {
        Self {
            from,
            to,
            tcp: tcp.then_some(SYN),
            hops: HOPS,
        }
    }

    /// The next of the same client.
    pub(crate) fn next(self) -> Self {
        Self {
            tcp: self.tcp.map(|_| ACK),
            ..self
        }
    }

    /// What its receiver answers.
    pub(crate) fn answer(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            tcp: self.tcp.map(|flags| flags | ACK),
            hops: HOPS,
        }
    }

    /// The same after a router.
    pub(crate) fn routed(self) -> Self {
        Self {
            hops: self.hops - 1,
            ..self
        }
    }
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Plain(Shape, Vec<u8>),
    /// A reset, with its acknowledgement number.
    Reset(Shape, u32),
    /// An ICMP error about a packet with these ends.
    Error {
        kind: (u8, u8),
        from: IpAddr,
        to: IpAddr,
        about: (SocketAddr, SocketAddr),
    },
}

/// Bytes of a packet.
pub(crate) fn write(shape: Shape, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = match (shape.from.ip(), shape.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), shape.hops),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), shape.hops),
        _ => panic!("{shape:?}: two families"),
    };
    let (from, to) = (shape.from.port(), shape.to.port());
    let mut bytes = Vec::new();
    match shape.tcp {
        None => builder.udp(from, to).write(&mut bytes, payload).unwrap(),
        Some(flags) => {
            let mut tcp = etherparse::TcpHeader::new(from, to, SEQUENCE, 1024);
            tcp.syn = flags & SYN != 0;
            tcp.rst = flags & RST != 0;
            tcp.ack = flags & ACK != 0;
            builder.tcp_header(tcp).write(&mut bytes, payload).unwrap();
        }
    }
    bytes
}

/// The same of SCTP: as much of it as tells flows apart.
pub(crate) fn write_sctp(shape: Shape, payload: &[u8]) -> Vec<u8> {
    let mut bytes = write(Shape { tcp: None, ..shape }, payload);
    if shape.from.is_ipv4() {
        let (mut header, rest) = etherparse::Ipv4Header::from_slice(&bytes[ETHERNET..]).unwrap();
        header.protocol = etherparse::ip_number::SCTP;
        header.header_checksum = header.calc_header_checksum();
        return [&bytes[..ETHERNET], &header.to_bytes(), rest].concat();
    }
    bytes[ETHERNET + 6] = etherparse::ip_number::SCTP.0;
    bytes
}

/// "Port unreachable" about a frame, as its receiver complains.
pub(crate) fn complaint(by: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let quoted = &about[ETHERNET..];
    let mut bytes = Vec::new();
    match (by, to) {
        (IpAddr::V4(by), IpAddr::V4(to)) => ethernet
            .ipv4(by.octets(), to.octets(), HOPS)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(
                etherparse::icmpv4::DestUnreachableHeader::Port,
            ))
            .write(&mut bytes, quoted)
            .unwrap(),
        (IpAddr::V6(by), IpAddr::V6(to)) => ethernet
            .ipv6(by.octets(), to.octets(), HOPS)
            .icmpv6(etherparse::Icmpv6Type::DestinationUnreachable(
                etherparse::icmpv6::DestUnreachableCode::Port,
            ))
            .write(&mut bytes, quoted)
            .unwrap(),
        _ => panic!("{by} to {to}: two families"),
    }
    bytes
}

/// Reads a frame and checks its checksums.
pub(crate) fn read(bytes: &[u8]) -> Result<Content, String> {
    let sliced = SlicedPacket::from_ethernet(bytes).map_err(|error| error.to_string())?;
    let net = sliced.net.as_ref().ok_or("neither IPv4 nor IPv6")?;
    let (from, to, hops) = network(net)?;
    let segment = |sport, dport, tcp| Shape {
        from: SocketAddr::new(from, sport),
        to: SocketAddr::new(to, dport),
        tcp,
        hops,
    };
    match sliced.transport.ok_or("nothing in it")? {
        TransportSlice::Tcp(tcp) => {
            let (header, payload) = (tcp.to_header(), tcp.payload());
            let computed = match net {
                NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), payload),
                NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), payload),
                NetSlice::Arp(_) => return Err("ARP".to_owned()),
            };
            same("TCP checksum", computed.ok(), Some(header.checksum))?;
            let flags = tcp.slice()[13];
            let shape = segment(header.source_port, header.destination_port, Some(flags));
            Ok(match header.rst {
                true => Content::Reset(shape, header.acknowledgment_number),
                false => Content::Plain(shape, payload.to_vec()),
            })
        }
        TransportSlice::Udp(udp) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            let computed = match net {
                NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), payload),
                NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), payload),
                NetSlice::Arp(_) => return Err("ARP".to_owned()),
            };
            same("UDP checksum", computed.ok(), Some(header.checksum))?;
            let shape = segment(header.source_port, header.destination_port, None);
            Ok(Content::Plain(shape, payload.to_vec()))
        }
        TransportSlice::Icmpv4(icmp) => {
            let again = Icmpv4Header::with_checksum(icmp.icmp_type(), icmp.payload());
            same("ICMP checksum", again.checksum, icmp.checksum())?;
            error((icmp.type_u8(), icmp.code_u8()), (from, to), icmp.payload())
        }
        TransportSlice::Icmpv6(icmp) => {
            if let NetSlice::Ipv6(ip) = net {
                let header = ip.header();
                let valid = icmp.is_checksum_valid(header.source(), header.destination());
                same("ICMPv6 checksum is valid", valid, true)?;
            }
            error((icmp.type_u8(), icmp.code_u8()), (from, to), icmp.payload())
        }
        TransportSlice::Igmp(_) => Err("IGMP".to_owned()),
    }
}

fn network(net: &NetSlice<'_>) -> Result<(IpAddr, IpAddr, u8), String> {
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            let computed = header.calc_header_checksum();
            same("IPv4 checksum", computed, header.header_checksum)?;
            let (from, to) = (header.source.into(), header.destination.into());
            Ok((from, to, header.time_to_live))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            Ok((from.into(), to.into(), header.hop_limit()))
        }
        NetSlice::Arp(_) => Err("ARP".to_owned()),
    }
}

fn error(kind: (u8, u8), (from, to): (IpAddr, IpAddr), quoted: &[u8]) -> Result<Content, String> {
    // Cut off where the answers of the programs end, so that only headers can be read.
    let (source, destination, ports) = match quoted.first().map(|byte| byte >> 4) {
        Some(4) => {
            let (header, rest) =
                etherparse::Ipv4Header::from_slice(quoted).map_err(|e| e.to_string())?;
            let computed = header.calc_header_checksum();
            same("quoted IPv4 checksum", computed, header.header_checksum)?;
            (header.source.into(), header.destination.into(), rest)
        }
        _ => {
            let (header, rest) =
                etherparse::Ipv6Header::from_slice(quoted).map_err(|e| e.to_string())?;
            (IpAddr::from(header.source), header.destination.into(), rest)
        }
    };
    let [a, b, c, d, ..] = *ports else {
        return Err("no ports are quoted".to_owned());
    };
    let port = |high, low| u16::from_be_bytes([high, low]);
    Ok(Content::Error {
        kind,
        from,
        to,
        about: (
            SocketAddr::new(source, port(a, b)),
            SocketAddr::new(destination, port(c, d)),
        ),
    })
}

/// Complains if two things differ.
#[expect(
    clippy::needless_pass_by_value,
    reason = "what is compared is mostly made for it"
)]
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?} instead of {expected:?}"))
}

/// What acknowledges a first segment.
pub(crate) fn acknowledgement(payload: &[u8]) -> u32 {
    SEQUENCE + 1 + u32::try_from(payload.len()).unwrap()
}

/// The two fragments of a datagram, cut at a multiple of eight bytes behind its IP header.
pub(crate) fn cut(datagram: &[u8], at: usize, id: u16) -> [Vec<u8>; 2] {
    let v4 = datagram[ETHERNET] >> 4 == 4;
    let (ip, transport) = datagram[ETHERNET..].split_at(if v4 { 20 } else { 40 });
    let part = |bytes: &[u8], offset: usize, more: bool| {
        let mut frame = datagram[..ETHERNET].to_vec();
        if v4 {
            let mut header = etherparse::Ipv4Header::from_slice(ip).unwrap().0;
            header.total_len = u16::try_from(20 + bytes.len()).unwrap();
            header.identification = id;
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = u16::try_from(offset / 8).unwrap().try_into().unwrap();
            header.header_checksum = header.calc_header_checksum();
            frame.extend(header.to_bytes());
        } else {
            let mut header = etherparse::Ipv6Header::from_slice(ip).unwrap().0;
            let number = header.next_header;
            header.next_header = etherparse::ip_number::IPV6_FRAGMENTATION_HEADER;
            header.payload_length = u16::try_from(8 + bytes.len()).unwrap();
            frame.extend(header.to_bytes());
            let place = u16::try_from(offset).unwrap() | u16::from(more);
            frame.extend([number.0, 0]);
            frame.extend(place.to_be_bytes());
            frame.extend(u32::from(id).to_be_bytes());
        }
        frame.extend(bytes);
        frame
    };
    let (first, last) = transport.split_at(at);
    [part(first, 0, true), part(last, at, false)]
}

/// Puts two fragments together again.
pub(crate) fn join([first, last]: [&[u8]; 2]) -> Vec<u8> {
    let v4 = first[ETHERNET] >> 4 == 4;
    let mut whole = first[..ETHERNET].to_vec();
    if v4 {
        let (mut header, bytes) = etherparse::Ipv4Header::from_slice(&first[ETHERNET..]).unwrap();
        let rest = &last[ETHERNET + 20..];
        header.total_len = u16::try_from(20 + bytes.len() + rest.len()).unwrap();
        header.more_fragments = false;
        header.header_checksum = header.calc_header_checksum();
        whole.extend(header.to_bytes());
        whole.extend(bytes);
        whole.extend(rest);
    } else {
        let (mut header, bytes) = etherparse::Ipv6Header::from_slice(&first[ETHERNET..]).unwrap();
        let (extension, bytes) = bytes.split_at(8);
        let rest = &last[ETHERNET + 48..];
        header.next_header = etherparse::IpNumber(extension[0]);
        header.payload_length = u16::try_from(bytes.len() + rest.len()).unwrap();
        whole.extend(header.to_bytes());
        whole.extend(bytes);
        whole.extend(rest);
    }
    whole
}
