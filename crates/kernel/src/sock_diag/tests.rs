use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// An answer as the kernel builds it.
fn message(family: u8, id: &[u8; ID]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(88_u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend([0; 10]);
    // Family, state, timer, retransmissions.
    bytes.extend([family, 1, 0, 0]);
    bytes.extend(id);
    // Expiry, queues, user, inode.
    bytes.extend([0; 20]);
    bytes
}

fn read_bytes(bytes: &[u8]) -> Option<UdpSocket> {
    read(&NetlinkBuffer::new_checked(bytes).ok()?)
}

#[test]
fn a_socket_is_read_as_the_kernel_wrote_it() {
    let mut id = [0; ID];
    id[..4].copy_from_slice(&[0x9c, 0x40, 0x1f, 0x90]);
    id[20..24].copy_from_slice(&[10, 244, 1, 5]);
    id[40..44].copy_from_slice(&7_u32.to_ne_bytes());
    id[44..48].copy_from_slice(&1_u32.to_ne_bytes());
    let socket = read_bytes(&message(2, &id)).expect("a socket");
    assert_eq!(socket.peer, "10.244.1.5:8080".parse().unwrap());
    assert_eq!(socket.cookie, (1 << 32) + 7);
    assert_eq!(socket.family, SocketFamily::V4);

    // An IPv6 socket that talks IPv4.
    id[20..36].copy_from_slice(&Ipv4Addr::new(10, 244, 1, 5).to_ipv6_mapped().octets());
    let mapped = read_bytes(&message(10, &id)).expect("a socket");
    assert_eq!(mapped.peer, socket.peer);
    assert_eq!(mapped.family, SocketFamily::V6);
    id[20..36].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
    let socket = read_bytes(&message(10, &id)).expect("a socket");
    assert_eq!(socket.peer, "[::1]:8080".parse().unwrap());

    assert_eq!(read_bytes(&message(1, &id)), None);
}

#[test]
fn the_cgroup_stands_behind_the_rest() {
    let mut bytes = message(2, &[0; ID]);
    assert_eq!(read_bytes(&bytes).expect("a socket").cgroup, None);
    // Some other attribute, padded, then the one.
    bytes.extend([5, 0, 8, 0, 3, 0, 0, 0]);
    bytes.extend([12, 0, CGROUP_ID as u8, 0]);
    bytes.extend(4711_u64.to_ne_bytes());
    let length = u32::try_from(bytes.len()).expect("a short message");
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    assert_eq!(read_bytes(&bytes).expect("a socket").cgroup, Some(4711));
}

#[test]
fn a_request_has_the_size_that_the_kernel_wants() {
    let what = What {
        family: SocketFamily::V6,
        protocol: SocketProtocol::Udp,
        states: CONNECTED,
    };
    let bytes = request(DESTROY, 5, 9, &what, &[1; ID]);
    assert_eq!(bytes.len(), 72);
    assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
    assert_eq!(bytes[16..20], [10, 17, 0, 0]);
    assert_eq!(bytes[20..24], 2_u32.to_ne_bytes());
}

proptest! {
    #[test]
    fn foreign_bytes_are_no_socket_or_one(
        family in any::<u8>(),
        junk in vec(any::<u8>(), 0..128),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message(family, &[0; ID]);
        let at = at.index(bytes.len());
        for (byte, junk) in bytes[at..].iter_mut().zip(&junk) {
            *byte = *junk;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = read_bytes(&bytes);
        let _ = read_bytes(&junk);
    }
}
