//! Frames, as the classifiers of eBPF mode read and translate them: the same code, over bytes that nobody has looked at.
//! Sums are computed here once more, in full and another way.

use seaway_ebpf_abi::{Addr, FlowKey, FlowValue, Hop, SCTP, Shortcut, TCP, UDP};
use seaway_ebpf_logic::packet::{ETHERNET, Packet, Part, quoted};
use seaway_ebpf_logic::plain::{self, Headers, Ipv4, Ipv6};
use seaway_ebpf_logic::{checksum, nat, refuse, shortcut};

/// What comes before the frame: new addresses and ports.
const NEW: usize = 36;

/// A packet keeps its sums, right or wrong, through every translation, and comes back as it was.
pub(crate) fn check(bytes: &[u8]) {
    let Some((new, frame)) = bytes.split_first_chunk::<NEW>() else {
        return;
    };
    let mut packet = Packet::default();
    if packet.read(frame).is_err() {
        return;
    }
    match packet.part {
        Part::Whole | Part::First => {
            let to = addresses(new, &packet.key);
            // SCTP is refused or left alone.
            let translated = packet.key.protocol != SCTP;
            for forwarded in [false, packet.hops > 1].into_iter().filter(|_| translated) {
                translate(frame, &packet, &to, forwarded);
            }
            refuse(frame, &packet);
        }
        Part::Later => assert_eq!((packet.key.sport, packet.key.dport), (0, 0)),
        Part::Error => {
            let mut key = FlowKey::default();
            let v4 = packet.key.src.is_v4();
            let quoted = quoted(frame, packet.transport, v4, &mut key).expect("read before");
            assert!(packet.transport < quoted.network && quoted.network < quoted.transport);
            assert!(quoted.transport + 4 <= frame.len());
            assert_eq!(key, packet.key.swapped());
        }
    }
}

/// The addresses of a translation, in the family of the packet.
fn addresses(new: &[u8; NEW], key: &FlowKey) -> FlowKey {
    let word = |at: usize| u32::from_ne_bytes([new[at], new[at + 1], new[at + 2], new[at + 3]]);
    let address = |at: usize| match key.src.is_v4() {
        true => Addr::v4(word(at)),
        false => Addr {
            words: [word(at), word(at + 4), word(at + 8), word(at + 12)],
        },
    };
    FlowKey {
        src: address(0),
        dst: address(16),
        sport: u16::from_ne_bytes([new[32], new[33]]),
        dport: u16::from_ne_bytes([new[34], new[35]]),
        ..*key
    }
}

fn translate(frame: &[u8], packet: &Packet, to: &FlowKey, forwarded: bool) {
    let v4 = packet.key.src.is_v4();
    assert_eq!(packet.key.dst.is_v4(), v4, "two families");
    // A flow of IPv6 never leads to such an address.
    if !v4 && (to.src.is_v4() || to.dst.is_v4()) {
        return;
    }
    let mut there = frame.to_vec();
    rewrite(&mut there, packet, to, forwarded);
    let mut seen = Packet::default();
    seen.read(there.as_slice()).expect("the same headers");
    assert_eq!((&seen.key, seen.part), (to, packet.part));
    assert_eq!(seen.transport, packet.transport);
    assert_eq!(seen.hops, packet.hops - u8::from(forwarded));
    assert_eq!(
        sums(&there, &seen),
        sums(frame, packet),
        "{packet:?} to {to:?}"
    );

    let mut back = there.clone();
    rewrite(&mut back, &seen, &packet.key, false);
    if !forwarded {
        assert_eq!(
            blurred(&back, packet),
            blurred(frame, packet),
            "{packet:?} to {to:?}"
        );
    }
    let quick = match packet.key.src.is_v4() {
        true => short_way(frame, packet, to, forwarded, ipv4(frame)),
        false => short_way(frame, packet, to, forwarded, ipv6(frame)),
    };
    if let Some(quick) = quick {
        assert_eq!(
            blurred(&quick, packet),
            blurred(&there, packet),
            "{packet:?} to {to:?}"
        );
    }
}

/// What the classifiers do on their long way, with the kernel's part in it.
fn rewrite(bytes: &mut [u8], packet: &Packet, to: &FlowKey, forwarded: bool) {
    let changes = nat::differences(&packet.key, to);
    let at = packet.checksum();
    let old = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let new = checksum::update(old, checksum::add(changes.addresses, changes.ports));
    // None at all stays none; a computed zero is sent as all ones (RFC 768).
    let new = match (packet.key.protocol, old, new) {
        (UDP, 0, _) => 0,
        (UDP, _, 0) => 0xffff,
        _ => new,
    };
    bytes[at..at + 2].copy_from_slice(&new.to_ne_bytes());
    if packet.key.src.is_v4() {
        let was = (packet.hops, packet.protocol(), packet.check);
        let header = nat::ipv4_mutable(was, &packet.key, to, forwarded);
        bytes[ETHERNET + nat::IPV4_MUTABLE..][..12].copy_from_slice(&header);
    } else {
        bytes[ETHERNET + nat::IPV6_HOPS] = nat::ipv6_hops(packet.hops, forwarded);
        let words = to.src.words.into_iter().chain(to.dst.words);
        let octets: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        bytes[ETHERNET + nat::IPV6_ADDRESSES..][..32].copy_from_slice(&octets);
    }
    let at = packet.transport;
    bytes[at..at + 2].copy_from_slice(&to.sport.to_ne_bytes());
    bytes[at + 2..at + 4].copy_from_slice(&to.dport.to_ne_bytes());
}

/// The same on their short way, by headers of that frame; `None` where they do not take it.
fn short_way<H: Headers, const SIZE: usize>(
    frame: &[u8],
    packet: &Packet,
    to: &FlowKey,
    forwarded: bool,
    (mut headers, bytes_of): (H, impl Fn(H) -> [u8; SIZE]),
) -> Option<Vec<u8>> {
    let has_more = packet.transport != ETHERNET + H::IP || packet.part != Part::Whole;
    let Some(protocol) = headers.protocol() else {
        assert!(has_more, "{packet:?} is a plain one");
        return None;
    };
    assert!(!has_more, "{packet:?} is no plain one");
    assert_eq!(headers.key(protocol), packet.key);
    assert_eq!(headers.hash(protocol), shortcut::hash(&packet.key));
    assert_eq!(headers.hops(), packet.hops);
    let flow = FlowValue {
        src: to.src,
        dst: to.dst,
        sport: to.sport,
        dport: to.dport,
        hop: Hop {
            ifindex: u32::from(forwarded),
            ..Hop::default()
        },
        ..FlowValue::default()
    };
    let mut way = Shortcut::default();
    if !shortcut::fill::<H>(&mut way, &packet.key, &flow, (1, 1)) {
        return None;
    }
    assert!(headers.are_of(&way));
    let length = headers.length();
    headers.write(&way);
    let mut bytes = frame.to_vec();
    bytes[ETHERNET..][..SIZE].copy_from_slice(&bytes_of(headers));
    let at = packet.checksum();
    let before = u16::from_ne_bytes([frame[at], frame[at + 1]]);
    if protocol == TCP || before != 0 {
        let mended = if plain::may_be_partial(&way, before, length) {
            // The kernel's part, of a packet that it will not sum up again.
            let after = checksum::update(before, u32::from(way.addresses));
            let after = if protocol == UDP && after == 0 {
                0xffff
            } else {
                after
            };
            plain::mend(&way, before, after, protocol)
        } else {
            plain::mend_whole(&way, before, protocol)
        };
        bytes[at..at + 2].copy_from_slice(&mended.to_ne_bytes());
    }
    Some(bytes)
}

/// The words of the headers of a frame that has so many.
fn ipv4(frame: &[u8]) -> (Ipv4, impl Fn(Ipv4) -> [u8; 28]) {
    let mut headers = [0; 7];
    for (to, from) in headers.iter_mut().zip(frame[ETHERNET..].chunks_exact(4)) {
        *to = u32::from_ne_bytes([from[0], from[1], from[2], from[3]]);
    }
    (headers, |headers| {
        let mut bytes = [0; 28];
        for (to, from) in bytes.chunks_exact_mut(4).zip(headers) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    })
}

fn ipv6(frame: &[u8]) -> (Ipv6, impl Fn(Ipv6) -> [u8; 48]) {
    let mut headers = [0; 6];
    for (to, from) in headers.iter_mut().zip(frame[ETHERNET..].chunks_exact(8)) {
        *to = u64::from_ne_bytes(from.try_into().expect("chunks of eight"));
    }
    (headers, |headers| {
        let mut bytes = [0; 48];
        for (to, from) in bytes.chunks_exact_mut(8).zip(headers) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    })
}

/// The sums of the IPv4 header and of the transport with its pseudo header; none for a datagram that has none.
fn sums(frame: &[u8], packet: &Packet) -> (u16, Option<u16>) {
    let v4 = packet.key.src.is_v4();
    let (header, pseudo) = match v4 {
        true => (
            sum(&frame[ETHERNET..ETHERNET + 20]),
            sum(&frame[ETHERNET + 12..ETHERNET + 20]),
        ),
        false => (0, sum(&frame[ETHERNET + 8..ETHERNET + 40])),
    };
    let at = packet.checksum();
    if packet.key.protocol == UDP && frame[at..at + 2] == [0, 0] {
        return (header, None);
    }
    // Protocol and length are the same before and after.
    let transport = u32::from(sum(&frame[packet.transport..])) + u32::from(pseudo);
    (header, Some((transport % 0xffff) as u16))
}

/// In one's complement, in big endian, by division: as RFC 1071 defines it, and as nobody computes it.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        _ => u64::from(word[0]) << 8,
    });
    (words.sum::<u64>() % 0xffff) as u16
}

/// The frame with zero in place of all ones in its checksums, which mean the same.
fn blurred(frame: &[u8], packet: &Packet) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut places = vec![packet.checksum()];
    if packet.key.src.is_v4() {
        places.push(ETHERNET + 10);
    }
    for at in places {
        if frame[at..at + 2] == [0xff; 2] {
            frame[at..at + 2].fill(0);
        }
    }
    frame
}

/// Answers that refuse the packet have right sums.
fn refuse(frame: &[u8], packet: &Packet) {
    let key = &packet.key;
    let transport = &frame[packet.transport..];
    if let Some(segment) = transport
        .first_chunk::<{ refuse::RESET }>()
        .filter(|_| key.protocol == TCP)
    {
        let mut reset = *segment;
        let payload = (transport.len() - refuse::RESET) as u32;
        refuse::reset(key, &mut reset, payload);
        assert!(holds(key, TCP, &reset), "{packet:?}");
    }
    match key.src.is_v4() {
        true => unreachable::<36>(frame, packet),
        false => unreachable::<56>(frame, packet),
    }
}

/// "Port unreachable", and "packet too big".
fn unreachable<const N: usize>(frame: &[u8], packet: &Packet) {
    let key = &packet.key;
    for mtu in [0, 1280] {
        let mut message = [0; N];
        let header = N - 16;
        message[8..8 + header].copy_from_slice(&frame[ETHERNET..ETHERNET + header]);
        message[8 + header..].copy_from_slice(&frame[packet.transport..packet.transport + 8]);
        for zeros in [0, 18] {
            refuse::icmp_error(&key.dst, &key.src, mtu, &mut message, zeros);
            let whole = [message.as_slice(), &vec![0; zeros.into()]].concat();
            let holds = match key.src.is_v4() {
                true => sum(&whole) == 0,
                false => holds(key, refuse::icmp_protocol(false), &whole),
            };
            assert!(holds, "{packet:?}: {whole:?}");
        }
    }
}

/// Whether an answer to a packet with this key is summed up rightly, pseudo header included.
fn holds(key: &FlowKey, protocol: u8, message: &[u8]) -> bool {
    let octets = |addr: &Addr| match addr.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let length = (message.len() as u16).to_be_bytes();
    let pseudo = [
        octets(&key.dst),
        octets(&key.src),
        vec![0, protocol],
        length.to_vec(),
    ]
    .concat();
    (u32::from(sum(&pseudo)) + u32::from(sum(message))).is_multiple_of(0xffff)
}
