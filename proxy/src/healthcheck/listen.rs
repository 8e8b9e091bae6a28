//! Listening sockets of one port, in both families or at chosen addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt,
};
use tokio::net::TcpListener;

use super::Addresses;

/// Connections that wait to be taken; a health check makes few.
const BACKLOG: i32 = 64;

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub(super) struct Error {
    address: SocketAddr,
    cause: io::Error,
}

/// Opens all sockets or none.
pub(super) fn open(addresses: &Addresses, port: u16) -> Result<Vec<TcpListener>, Error> {
    match addresses {
        Addresses::All => {
            let mut sockets = vec![one(Ipv4Addr::UNSPECIFIED.into(), port)?];
            match one(Ipv6Addr::UNSPECIFIED.into(), port) {
                Ok(socket) => sockets.push(socket),
                Err(error) if has_no_ipv6(&error.cause) => {}
                Err(error) => return Err(error),
            }
            Ok(sockets)
        }
        Addresses::Only(addresses) => addresses.iter().map(|ip| one(*ip, port)).collect(),
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let errors = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    errors
        .iter()
        .any(|e| error.raw_os_error() == Some(*e as i32))
}

fn one(ip: IpAddr, port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(ip, port);
    listener(address).map_err(|cause| Error { address, cause })
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // The IPv4 half has a socket of its own, whatever net.ipv6.bindv6only says.
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    TcpListener::from_std(socket.into())
}
