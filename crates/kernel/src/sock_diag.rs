//! Sockets of a network namespace over sock_diag(7): which there are, and ending UDP ones (`SOCK_DESTROY`).
//!
//! netlink-packet-sock-diag 0.4 speaks an older netlink-packet-core and knows no `SOCK_DESTROY`; two messages of fixed
//! size are all that is needed (linux/inet_diag.h). The calls block.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer};
use nix::libc::{AF_INET, AF_INET6, EOPNOTSUPP, IPPROTO_TCP, IPPROTO_UDP};
use nix::sys::socket::SockProtocol;

use crate::netlink::blocking::Blocking;
use crate::netlink::message::{Message, attribute};
use crate::netlink::{Failure, was_there};
use crate::{Error, NetNs};

#[cfg(test)]
mod tests;

/// `SOCK_DIAG_BY_FAMILY`, and so the kind of an answer.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// `TCP_ESTABLISHED`, which a UDP socket is in while it is connected, as a set of states.
const CONNECTED: u32 = 1 << 1;
/// `TCP_CLOSE`, which a UDP socket is in while it is not.
const UNCONNECTED: u32 = 1 << 7;
const ANY_STATE: u32 = u32::MAX;

/// `struct inet_diag_sockid`: ports, two addresses of 16 bytes, interface, cookie.
const ID: usize = 48;
/// Where the id is in `struct inet_diag_msg`, and how long that is.
const ID_AT: usize = 4;
/// Where the inode is there, behind the time of expiry, two queues and the user.
const INODE_AT: usize = ID_AT + ID + 16;
const MESSAGE: usize = 72;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP_ID: u16 = 21;

/// The kernel's family of a socket. One of IPv6 may talk IPv4, with mapped addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketFamily {
    V4,
    V6,
}

impl SocketFamily {
    fn number(self) -> u8 {
        // Both are below 256.
        let number = match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        };
        number as u8
    }
}

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketProtocol {
    Tcp,
    Udp,
}

impl SocketProtocol {
    fn number(self) -> u8 {
        // Both are below 256.
        let number = match self {
            Self::Tcp => IPPROTO_TCP,
            Self::Udp => IPPROTO_UDP,
        };
        number as u8
    }
}

/// A UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpSocket {
    pub family: SocketFamily,
    /// A mapped address stands here as the IPv4 address that it means.
    pub local: SocketAddr,
    /// Where it sends to; unspecified, with port 0, if it is not connected.
    pub peer: SocketAddr,
    /// The kernel's number of the socket, as `bpf_get_socket_cookie` gives it; never used twice before a reboot.
    pub cookie: u64,
    /// The control group (version 2) that it was made in: the inode of its directory. `None` if the kernel does not say.
    pub cgroup: Option<u64>,
    id: [u8; ID],
}

/// The sockets of one network namespace.
#[derive(Debug)]
pub struct SockDiag {
    socket: Blocking,
}

impl SockDiag {
    /// For the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        let socket = Blocking::open(SockProtocol::NetlinkSockDiag, "sock_diag socket")?;
        Ok(Self { socket })
    }

    /// For another network namespace; it stays that one's on whatever thread it is used.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, Error> {
        let _inside = netns.enter()?;
        Self::open()
    }

    /// The connected UDP sockets, of a port that they are connected to or of all. The kernel does the selecting.
    pub fn connected_udp(
        &mut self,
        family: SocketFamily,
        port: Option<u16>,
    ) -> Result<Vec<UdpSocket>, Error> {
        self.udp(family, CONNECTED, port)
    }

    /// The UDP sockets that have a port and are not connected: each datagram says where it goes.
    pub fn unconnected_udp(&mut self, family: SocketFamily) -> Result<Vec<UdpSocket>, Error> {
        self.udp(family, UNCONNECTED, None)
    }

    fn udp(
        &mut self,
        family: SocketFamily,
        states: u32,
        port: Option<u16>,
    ) -> Result<Vec<UdpSocket>, Error> {
        let mut id = [0; ID];
        id[2..4].copy_from_slice(&port.unwrap_or(0).to_be_bytes());
        let mut sockets = Vec::new();
        let what = What {
            family,
            protocol: SocketProtocol::Udp,
            states,
        };
        self.dump(&what, &id, |message| sockets.extend(read(message)))?;
        Ok(sockets)
    }

    /// The cookies of all TCP sockets that a program has open, in whatever state: not of those that the kernel alone still keeps
    /// (as in `TIME_WAIT`), which have no inode.
    pub fn tcp_cookies(&mut self) -> Result<BTreeSet<u64>, Error> {
        let mut cookies = BTreeSet::new();
        for family in [SocketFamily::V4, SocketFamily::V6] {
            let what = What {
                family,
                protocol: SocketProtocol::Tcp,
                states: ANY_STATE,
            };
            self.dump(&what, &[0; ID], |message| {
                let open = read(message).filter(|_| has_inode(message));
                cookies.extend(open.map(|socket| socket.cookie));
            })?;
        }
        Ok(cookies)
    }

    fn dump(
        &mut self,
        what: &What,
        id: &[u8; ID],
        each: impl FnMut(&NetlinkBuffer<&[u8]>),
    ) -> Result<(), Error> {
        let failed =
            |failure: Failure| failure.into_error("list", format!("{:?} sockets", what.protocol));
        let sequence = self.socket.next_sequence();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let request = request(BY_FAMILY, flags, sequence, what, id);
        self.socket.ask(&request, each).map(drop).map_err(failed)
    }

    /// Ends a socket: whoever uses it is told `ECONNABORTED`, or `EDESTADDRREQ` when it sends first (`udp_abort`). Returns
    /// whether it was still there, as it was listed.
    pub fn destroy(&mut self, socket: &UdpSocket) -> Result<bool, Error> {
        let what = || format!("UDP socket {} to {}", socket.local, socket.peer);
        let answer = self.request_destroy(socket.family, &socket.id);
        was_there(answer, "close", what)
    }

    /// Whether the kernel can list UDP sockets (`CONFIG_INET_UDP_DIAG`) and end them (`CONFIG_INET_DIAG_DESTROY`): asks it
    /// to end one that cannot be.
    pub fn can_destroy(&mut self) -> Result<bool, Error> {
        match self.connected_udp(SocketFamily::V4, Some(1)) {
            Err(error) if error.is_absent() => return Ok(false),
            other => drop(other?),
        }
        match self.request_destroy(SocketFamily::V4, &[0; ID]) {
            Ok(()) => Ok(true),
            Err(failure) => match failure.into_error("close", "no socket".to_owned()) {
                error if error.errno() == Some(EOPNOTSUPP) => Ok(false),
                error if error.is_absent() => Ok(true),
                error => Err(error),
            },
        }
    }

    fn request_destroy(&mut self, family: SocketFamily, id: &[u8; ID]) -> Result<(), Failure> {
        let sequence = self.socket.next_sequence();
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let what = What {
            family,
            protocol: SocketProtocol::Udp,
            states: CONNECTED,
        };
        let request = request(DESTROY, flags, sequence, &what, id);
        self.socket.change(&request)
    }
}

/// Which sockets are meant.
struct What {
    family: SocketFamily,
    protocol: SocketProtocol,
    /// A bit for each.
    states: u32,
}

/// `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, sequence: u32, what: &What, id: &[u8; ID]) -> Vec<u8> {
    let mut message = Message::new(kind, flags, sequence);
    // No extensions, and padding.
    message.raw(&[what.family.number(), what.protocol.number(), 0, 0]);
    message.raw(&what.states.to_ne_bytes());
    message.raw(id);
    message.finish()
}

/// Whether the socket in a message is one that a program has open.
fn has_inode(message: &NetlinkBuffer<&[u8]>) -> bool {
    let inode = message.payload().get(INODE_AT..INODE_AT + 4);
    inode.is_some_and(|inode| inode != [0; 4])
}

/// The socket in a message (`struct inet_diag_msg`); `None` for anything else.
fn read(message: &NetlinkBuffer<&[u8]>) -> Option<UdpSocket> {
    if message.message_type() != BY_FAMILY {
        return None;
    }
    let payload = message.payload();
    let family = match i32::from(*payload.first()?) {
        AF_INET => SocketFamily::V4,
        AF_INET6 => SocketFamily::V6,
        _ => return None,
    };
    let id: [u8; ID] = payload.get(ID_AT..ID_AT + ID)?.try_into().ok()?;
    let end = |port_at: usize, at| {
        let port = u16::from_be_bytes([id[port_at], id[port_at + 1]]);
        SocketAddr::new(address(&id, at, family), port)
    };
    let [low, high] = [word(&id, 40), word(&id, 44)];
    Some(UdpSocket {
        family,
        local: end(0, 4),
        peer: end(2, 20),
        cookie: u64::from(high) << 32 | u64::from(low),
        cgroup: cgroup(payload.get(MESSAGE..).unwrap_or_default()),
        id,
    })
}

/// The cgroup among the attributes (`struct nlattr`) behind a message.
fn cgroup(attributes: &[u8]) -> Option<u64> {
    let number = attribute(attributes, CGROUP_ID)?.try_into().ok()?;
    Some(u64::from_ne_bytes(number))
}

fn word(id: &[u8; ID], at: usize) -> u32 {
    u32::from_ne_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]])
}

fn address(id: &[u8; ID], at: usize, family: SocketFamily) -> IpAddr {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&id[at..at + 16]);
    let [a, b, c, d, ..] = bytes;
    match family {
        SocketFamily::V4 => Ipv4Addr::new(a, b, c, d).into(),
        SocketFamily::V6 => Ipv6Addr::from(bytes).to_canonical(),
    }
}
