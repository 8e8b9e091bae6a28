use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NetlinkBuffer;
use proptest::array;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn flow() -> impl Strategy<Value = Flow> {
    let v4 = || any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits)));
    let v6 = || any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits)));
    let addresses = prop_oneof![array::uniform4(v4()).boxed(), array::uniform4(v6()).boxed()];
    let numbers = any::<(u8, u32, u32, u16, u32, Option<u8>)>();
    (addresses, any::<[u16; 4]>(), numbers).prop_map(|(ips, ports, numbers)| {
        let end = |i: usize| SocketAddr::new(ips[i], ports[i]);
        let (protocol, status, mark, zone, id, tcp) = numbers;
        Flow {
            protocol,
            original: Tuple {
                source: end(0),
                destination: end(1),
            },
            reply: Tuple {
                source: end(2),
                destination: end(3),
            },
            status: Status(status),
            tcp: tcp.and_then(|number| TcpState::of(number % 10)),
            mark,
            zone,
            id,
        }
    })
}

fn read(bytes: &[u8]) -> Option<Flow> {
    wire::read_flow(&NetlinkBuffer::new_checked(bytes).ok()?)
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_was_written(flow in flow()) {
        let message = wire::entry_message(&flow, 7);
        prop_assert_eq!(message.len() % 4, 0);
        prop_assert_eq!(read(&message), Some(flow));
    }

    /// The kernel translates within a family; what says otherwise is no entry.
    #[test]
    fn both_directions_are_of_one_family(flow in flow(), other in flow()) {
        let mixed = Flow { reply: other.reply, ..flow };
        let found = read(&wire::entry_message(&mixed, 7));
        prop_assert_eq!(found, (flow.family() == other.family()).then_some(mixed));
    }

    /// A kernel of tomorrow or a stranger's socket may send anything.
    #[test]
    fn foreign_bytes_are_no_entry_and_no_panic(
        flow in flow(),
        junk in vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = wire::entry_message(&flow, 7);
        let at = at.index(message.len());
        for (byte, junk) in message[at..].iter_mut().zip(&junk) {
            *byte = *junk;
        }
        message.truncate(cut.index(message.len() + 1));
        for bytes in [&message, &junk] {
            if let Ok(buffer) = NetlinkBuffer::new_checked(bytes.as_slice()) {
                let _ = wire::read_flow(&buffer);
                let _ = blocking::read_end(&buffer);
            }
        }
    }

    /// Attributes that we do not know stand between ours, and change nothing.
    #[test]
    fn unknown_attributes_are_skipped(flow in flow(), kind in 30..0x3fff_u16, value in vec(any::<u8>(), 0..32)) {
        let mut message = wire::entry_message(&flow, 7);
        let mut unknown = Vec::new();
        unknown.extend((4 + value.len() as u16).to_ne_bytes());
        unknown.extend(kind.to_ne_bytes());
        unknown.extend(&value);
        unknown.resize(unknown.len().next_multiple_of(4), 0);
        message.splice(20..20, unknown);
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        prop_assert_eq!(read(&message), Some(flow));
    }

    /// Without a tuple the kernel would delete everything.
    #[test]
    fn a_deletion_names_the_whole_entry(flow in flow()) {
        let request = wire::delete_request(&flow, 9);
        let whole = wire::entry_message(&flow, 9);
        let length = |message: &[u8], at: usize| {
            usize::from(u16::from_ne_bytes([message[at], message[at + 1]]))
        };
        // The reply direction comes first here, and second in an entry; it has all of its length in either.
        let (here, there) = (20, 20 + length(&whole, 20));
        let length = length(&request, here);
        prop_assert_eq!(&request[here..here + length], &whole[there..there + length]);
        prop_assert!(request.ends_with(&flow.id.to_be_bytes()));
    }
}

/// A listing of UDP entries to one address and port, byte for byte (little-endian machine).
#[test]
#[cfg(target_endian = "little")]
fn the_filter_as_the_kernel_wants_it() {
    let filter = Filter {
        destination: Some([10, 96, 0, 10].into()),
        destination_port: Some(53),
        status: Status::DESTINATION_NAT,
        ..Filter::new(Family::V4, UDP)
    };
    #[rustfmt::skip]
    let expected = [
        0x54, 0, 0, 0,  1, 1,  1, 3,  5, 0, 0, 0,  0, 0, 0, 0,
        2, 0, 0, 0,
        0x24, 0, 1, 0x80,
            0x0c, 0, 1, 0x80,  8, 0, 2, 0,  10, 96, 0, 10,
            0x14, 0, 2, 0x80,  5, 0, 1, 0,  17, 0, 0, 0,  6, 0, 3, 0,  0, 53, 0, 0,
        0x0c, 0, 25, 0x80,  8, 0, 1, 0,  0x2a, 0, 0, 0,
        8, 0, 3, 0,  0, 0, 0, 0x20,
        8, 0, 26, 0,  0, 0, 0, 0x20,
    ];
    assert_eq!(wire::list_request(&filter, 5), expected);
}

#[test]
fn the_end_of_an_answer() {
    let message = |kind: u16, code: i32| {
        let mut bytes = vec![20, 0, 0, 0];
        bytes[..4].copy_from_slice(&20_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(code.to_ne_bytes());
        bytes
    };
    let end = |kind, code| {
        let bytes = message(kind, code);
        match blocking::read_end(&NetlinkBuffer::new_checked(bytes.as_slice()).unwrap()) {
            End::NotYet => None,
            End::Done => Some(0),
            End::Refused(error) => error.raw_os_error(),
        }
    };
    assert_eq!(end(3, 0), Some(0));
    assert_eq!(end(2, 0), Some(0));
    assert_eq!(end(2, -2), Some(2));
    assert_eq!(end(3, -4), Some(4));
    assert_eq!(end(2, i32::MIN), Some(i32::MAX));
    assert_eq!(end(0x100, 0), None);
}

#[test]
fn a_filter_sifts_what_the_kernel_did_not() {
    let to: SocketAddr = "10.96.0.10:53".parse().unwrap();
    let source: SocketAddr = "10.244.1.2:40000".parse().unwrap();
    let tuple = Tuple {
        source,
        destination: to,
    };
    let flow = Flow {
        protocol: UDP,
        original: tuple,
        reply: tuple,
        status: Status::DESTINATION_NAT,
        tcp: None,
        mark: 0,
        zone: 0,
        id: 1,
    };
    let all = Filter::new(Family::V4, UDP);
    let with = |change: fn(&mut Filter)| {
        let mut filter = all;
        change(&mut filter);
        filter.matches(&flow)
    };
    assert!(with(|_| {}));
    assert!(with(|f| f.destination_port = Some(53)));
    assert!(with(|f| f.destination = Some([10, 96, 0, 10].into())));
    assert!(with(|f| f.status = Status::DESTINATION_NAT));
    assert!(!with(|f| f.destination_port = Some(54)));
    assert!(!with(|f| f.destination = Some([10, 96, 0, 11].into())));
    assert!(!with(|f| f.status = Status::SOURCE_NAT));
    assert!(!with(|f| f.family = Family::V6));
    assert!(!with(|f| f.protocol = 6));
    assert!(!with(|f| f.zone = 1));
}
