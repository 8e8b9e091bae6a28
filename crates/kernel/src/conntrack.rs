//! Connection tracking entries over ctnetlink (`NFNL_SUBSYS_CTNETLINK` of nfnetlink): list, insert and delete.
//!
//! The table may hold hundreds of thousands of entries, so a listing is handed over as it arrives and never held as a
//! whole; an entry is a plain value without allocations. That is also why the messages are coded here, on
//! netlink-packet-core, and not by the conntrack part of netlink-packet-netfilter 0.4: it builds some twenty vectors an
//! entry and knows neither zones nor the kernel's filters.
//!
//! The calls block; callers of an async runtime use a thread for blocking work.

use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::SockProtocol;

use crate::netlink::blocking::{self, Blocking};
use crate::netlink::{Failure, was_there};
use crate::{Error, NetNs};

mod insert;
mod wire;

#[cfg(test)]
mod tests;

pub use crate::netlink::blocking::End;
pub use insert::NewFlow;

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// The zone of everything that nobody has put into another.
pub const DEFAULT_ZONE: u16 = 0;

/// One direction of a flow. Protocols without ports have port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Tuple {
    /// The same seen from the other end.
    #[must_use]
    pub fn swapped(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }
}

/// How far a TCP connection is (`enum tcp_conntrack`, linux/netfilter/nf_conntrack_tcp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    None = 0,
    SynSent = 1,
    SynReceived = 2,
    Established = 3,
    /// The first FIN, of either side.
    FinWait = 4,
    /// The other side has acknowledged it and may go on sending.
    CloseWait = 5,
    LastAck = 6,
    TimeWait = 7,
    /// After a reset.
    Close = 8,
    /// Both sides have sent a SYN.
    SynSent2 = 9,
}

impl TcpState {
    /// By the kernel's number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        [
            Self::None,
            Self::SynSent,
            Self::SynReceived,
            Self::Established,
            Self::FinWait,
            Self::CloseWait,
            Self::LastAck,
            Self::TimeWait,
            Self::Close,
            Self::SynSent2,
        ]
        .get(usize::from(number))
        .copied()
    }
}

/// `enum ip_conntrack_status` (linux/netfilter/nf_conntrack_common.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Status(pub u32);

impl Status {
    pub const SEEN_REPLY: Self = Self(1 << 1);
    pub const ASSURED: Self = Self(1 << 2);
    pub const CONFIRMED: Self = Self(1 << 3);
    pub const SOURCE_NAT: Self = Self(1 << 4);
    pub const DESTINATION_NAT: Self = Self(1 << 5);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// IANA protocol number.
    pub protocol: u8,
    /// The first packet as it came.
    pub original: Tuple,
    /// What a reply looks like before it is translated back: its source is who really answers.
    pub reply: Tuple,
    pub status: Status,
    /// Of TCP, where the kernel shows it.
    pub tcp: Option<TcpState>,
    pub mark: u32,
    /// Entries of other zones belong to somebody who has put them there (OVS, VRFs).
    pub zone: u16,
    /// The kernel's hash of the original direction and of where the entry lies in memory.
    pub id: u32,
}

impl Flow {
    /// The address family.
    pub fn family(&self) -> Family {
        Family::of(self.original.destination.ip())
    }
}

/// The address family of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Which entries to list. The kernel applies it, from 5.8 (zones other than the default one: 6.8) on, so that the rest
/// is not even copied; what it lists all the same is left out here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    pub family: Family,
    pub protocol: u8,
    pub zone: u16,
    /// All of these bits are set.
    pub status: Status,
    /// Of the original direction.
    pub destination: Option<IpAddr>,
    /// Of the original direction.
    pub destination_port: Option<u16>,
}

impl Filter {
    /// Every entry of a protocol in the default zone.
    pub fn new(family: Family, protocol: u8) -> Self {
        Self {
            family,
            protocol,
            zone: DEFAULT_ZONE,
            status: Status::default(),
            destination: None,
            destination_port: None,
        }
    }

    /// Whether the entry is one of those asked for.
    pub fn matches(&self, flow: &Flow) -> bool {
        let to = flow.original.destination;
        flow.family() == self.family
            && flow.protocol == self.protocol
            && flow.zone == self.zone
            && flow.status.contains(self.status)
            && self.destination.is_none_or(|ip| ip == to.ip())
            && self.destination_port.is_none_or(|port| port == to.port())
    }
}

/// The connection tracking table of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Blocking,
}

impl Conntrack {
    /// Opens the table of the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = Blocking::open(SockProtocol::NetlinkNetFilter, "conntrack socket")?;
        Ok(Self { socket })
    }

    /// Opens the table of another network namespace; it stays that one's on whatever thread it is used.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, Error> {
        let _inside = netns.enter()?;
        Self::open()
    }

    /// Lists the entries that `filter` selects: `each` is given them in the portions in which they arrive. An entry may
    /// come twice or be missed where the table is resized meanwhile; the kernel promises no more. After an error the
    /// socket still holds half an answer: open another.
    pub fn list(&mut self, filter: &Filter, mut each: impl FnMut(&[Flow])) -> Result<(), Error> {
        let what = || "conntrack entries".to_owned();
        let failed = |failure: Failure| failure.into_error("list", what());
        let sequence = self.socket.next_sequence();
        let request = wire::list_request(filter, sequence);
        self.socket.send(&request).map_err(failed)?;
        let mut flows = Vec::new();
        loop {
            flows.clear();
            let portion = self.socket.receive().map_err(failed)?;
            let end = read_portion(portion, sequence, |flow| {
                if filter.matches(&flow) {
                    flows.push(flow);
                }
            });
            if !flows.is_empty() {
                each(&flows);
            }
            match end.map_err(|reason| failed(Failure::Protocol(reason.into())))? {
                End::NotYet => {}
                End::Done => return Ok(()),
                End::Refused(cause) => return Err(failed(Failure::Refused(cause))),
            }
        }
    }

    /// Deletes this entry, and no later one of the same client that is translated otherwise. Returns whether it was
    /// there.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool, Error> {
        let what = || format!("{}, protocol {}", show(&flow.original), flow.protocol);
        let request = wire::delete_request(flow, self.socket.next_sequence());
        was_there(self.socket.change(&request), "delete", what)
    }
}

/// An entry by its original direction, for messages.
fn show(original: &Tuple) -> String {
    let Tuple {
        source,
        destination,
    } = original;
    format!("conntrack entry {source} to {destination}")
}

/// Reads a portion of the answer to the request of this number: `each` is given the entries in it, and left out is
/// what cannot be one. The error says what is wrong with the portion as a whole.
pub fn read_portion(
    portion: &[u8],
    sequence: u32,
    mut each: impl FnMut(Flow),
) -> Result<End, &'static str> {
    blocking::read_portion(portion, sequence, |message| {
        wire::read_flow(message).into_iter().for_each(&mut each);
    })
}
