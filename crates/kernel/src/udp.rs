//! What probes need of a UDP socket beyond the standard library.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::sockopt::Ipv6V6Only;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, socket};

use crate::Error;

/// `UDP_NO_CHECK6_TX` and `UDP_NO_CHECK6_RX` (linux/udp.h).
const NO_CHECK6_SEND: libc::c_int = 101;
const NO_CHECK6_RECEIVE: libc::c_int = 102;

/// A socket at a port of every address of one family, that does not block; of the calling thread's network namespace.
pub fn bind(ipv6: bool, port: u16) -> Result<UdpSocket, Error> {
    let failed = |e| Error::io("open", format!("UDP port {port}"), e);
    let (family, address) = if ipv6 {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        (AddressFamily::Inet6, any)
    } else {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        (AddressFamily::Inet, any)
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None).map_err(failed)?;
    if ipv6 {
        setsockopt(&socket, Ipv6V6Only, &true).map_err(failed)?;
    }
    let address = SockaddrStorage::from(address);
    nix::sys::socket::bind(socket.as_raw_fd(), &address).map_err(failed)?;
    Ok(socket.into())
}

/// Sends datagrams without a checksum from now on.
pub fn send_unchecked(socket: &UdpSocket) -> Result<(), Error> {
    let (level, option) = if is_v6(socket)? {
        (libc::SOL_UDP, NO_CHECK6_SEND)
    } else {
        (libc::SOL_SOCKET, libc::SO_NO_CHECK)
    };
    set(socket, level, option, 1, "send without checksums by")
}

/// Takes datagrams without a checksum; those of IPv4 need no asking.
pub fn receive_unchecked(socket: &UdpSocket) -> Result<(), Error> {
    if !is_v6(socket)? {
        return Ok(());
    }
    let operation = "receive without checksums by";
    set(socket, libc::SOL_UDP, NO_CHECK6_RECEIVE, 1, operation)
}

/// Never fragments, and does not believe what is known of the path: datagrams as large as the link's MTU go out
/// (`IP_PMTUDISC_PROBE`, ip(7)).
pub fn probe_path_mtu(socket: &UdpSocket) -> Result<(), Error> {
    let (level, option, value) = if is_v6(socket)? {
        let option = libc::IPV6_MTU_DISCOVER;
        (libc::SOL_IPV6, option, libc::IPV6_PMTUDISC_PROBE)
    } else {
        let option = libc::IP_MTU_DISCOVER;
        (libc::SOL_IP, option, libc::IP_PMTUDISC_PROBE)
    };
    set(socket, level, option, value, "probe the path by")
}

fn is_v6(socket: &UdpSocket) -> Result<bool, Error> {
    let address = socket.local_addr();
    address
        .map(|address| address.is_ipv6())
        .map_err(|e| Error::io("look at", "UDP socket", e))
}

#[expect(unsafe_code, reason = "these socket options have no safe wrapper")]
fn set(
    socket: &UdpSocket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
    operation: &'static str,
) -> Result<(), Error> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is a live `c_int` of `length` bytes, which the kernel reads during the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if answer != 0 {
        return Err(Error::io(
            operation,
            "UDP socket",
            std::io::Error::last_os_error(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn datagrams_without_a_checksum_are_sent_and_taken() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
            send_unchecked(&from).unwrap();
            probe_path_mtu(&from).unwrap();
            receive_unchecked(&to).unwrap();
            from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
            to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(to.recv(&mut [0; 9]).unwrap(), 5);
        }
    }
}
