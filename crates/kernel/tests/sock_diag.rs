//! Real sockets in namespaces of their own; needs root.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use seaway_kernel::sock_diag::SocketFamily;
use seaway_kernel::{NetNs, SockDiag};

fn connected(from: &str, to: &str) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(to).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    socket
}

#[test]
fn one_socket_is_ended_and_no_other() {
    let netns = NetNs::anonymous().unwrap();
    let mut diag = SockDiag::in_namespace(&netns).unwrap();
    assert!(diag.can_destroy().unwrap(), "CONFIG_INET_DIAG_DESTROY");
    let [wanted, same_peer, other, mapped, v6] = netns
        .run(|| {
            [
                connected("127.0.0.1:0", "127.0.0.1:53"),
                connected("127.0.0.1:0", "127.0.0.1:53"),
                connected("127.0.0.1:0", "127.0.0.1:54"),
                connected("[::]:0", "[::ffff:127.0.0.1]:53"),
                connected("[::1]:0", "[::1]:53"),
            ]
        })
        .unwrap();
    let unconnected = netns
        .run(|| UdpSocket::bind("127.0.0.1:0").unwrap())
        .unwrap();

    let v4 = diag.connected_udp(SocketFamily::V4, None).unwrap();
    assert_eq!(v4.len(), 3, "{v4:?}");
    let to_53 = diag.connected_udp(SocketFamily::V4, Some(53)).unwrap();
    assert_eq!(to_53.len(), 2, "{to_53:?}");
    let mut peers: Vec<String> = diag
        .connected_udp(SocketFamily::V6, Some(53))
        .unwrap()
        .iter()
        .map(|socket| socket.peer.to_string())
        .collect();
    peers.sort();
    assert_eq!(peers, ["127.0.0.1:53", "[::1]:53"]);

    let local = wanted.local_addr().unwrap();
    let found = to_53.iter().find(|socket| socket.local == local).unwrap();
    let twin = same_peer.local_addr().unwrap();
    let twin = to_53.iter().find(|socket| socket.local == twin).unwrap();
    assert_ne!(found.cookie, twin.cookie);
    assert!(diag.destroy(found).unwrap());
    let error = wanted.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert!(!diag.destroy(found).unwrap(), "it is gone");
    for socket in [&same_peer, &other, &mapped, &v6] {
        assert_eq!(
            socket.recv(&mut [0; 8]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }
    for socket in diag.connected_udp(SocketFamily::V6, None).unwrap() {
        assert!(diag.destroy(&socket).unwrap());
    }
    for socket in [&mapped, &v6] {
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }
    assert!(unconnected.local_addr().is_ok());
}

#[test]
fn sockets_that_are_not_connected_are_listed_with_their_cgroup() {
    let netns = NetNs::anonymous().unwrap();
    let mut diag = SockDiag::in_namespace(&netns).unwrap();
    let [bound, v6, other] = netns
        .run(|| {
            [
                UdpSocket::bind("127.0.0.1:0").unwrap(),
                UdpSocket::bind("[::]:0").unwrap(),
                connected("127.0.0.1:0", "127.0.0.1:53"),
            ]
        })
        .unwrap();
    let own = std::fs::metadata(seaway_kernel::cgroup::own().unwrap()).unwrap();
    for (family, socket) in [(SocketFamily::V4, &bound), (SocketFamily::V6, &v6)] {
        let listed = diag.unconnected_udp(family).unwrap();
        let [found] = listed.as_slice() else {
            panic!("{listed:?}");
        };
        assert_eq!(found.local, socket.local_addr().unwrap());
        assert_eq!(found.peer.port(), 0);
        assert_eq!(found.cgroup, Some(own.ino()));
    }
    let listener = netns
        .run(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .unwrap();
    assert_eq!(diag.tcp_cookies().unwrap().len(), 1);
    drop((other, listener));
}
