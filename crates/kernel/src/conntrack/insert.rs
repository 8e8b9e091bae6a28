//! Entries that somebody else's packets have not made: what another translator has carried so far.
//!
//! The kernel takes an entry without translation (`CTA_TUPLE_ORIG`, and its plain reverse as `CTA_TUPLE_REPLY`) and then
//! translates it as it is told (`CTA_NAT_DST`, `CTA_NAT_SRC`; `ctnetlink_create_conntrack` in
//! net/netfilter/nf_conntrack_netlink.c), as conntrackd does it. It needs the module nf_nat; and packets are translated
//! only in a network namespace that has hooks of nat, which any rule or chain of a nat table brings.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::wire::{DELETE, ENTRY, entry, info};
use super::{Conntrack, Failure, Family, Flow, Status, TCP, TcpState, Tuple, show};
use crate::Error;
use crate::netlink::message::Message;
use crate::netlink::was_there;

/// `IP_CT_TCP_FLAG_BE_LIBERAL` (linux/netfilter/nf_conntrack_tcp.h).
const BE_LIBERAL: u8 = 0x08;

/// How often an entry is inserted anew after one that stood in its way was deleted: packets may bring it back.
const ATTEMPTS: usize = 64;

/// `enum ctattr_nat` and `enum ctattr_protonat`.
mod nat {
    pub(super) const V4_MIN: u16 = 1;
    pub(super) const V4_MAX: u16 = 2;
    pub(super) const PROTOCOL: u16 = 3;
    pub(super) const V6_MIN: u16 = 4;
    pub(super) const V6_MAX: u16 = 5;
    pub(super) const PORT_MIN: u16 = 1;
    pub(super) const PORT_MAX: u16 = 2;
}

/// A flow that the table is told of. It stands in the default zone without a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewFlow {
    /// [`TCP`] or [`UDP`](super::UDP).
    pub protocol: u8,
    /// A packet of the client as it comes.
    pub original: Tuple,
    /// A packet of the backend as it comes: the entry translates whatever differs from the reverse of `original`.
    pub reply: Tuple,
    /// Of TCP. Packets outside of the window pass: the kernel has not seen those before.
    pub tcp: Option<TcpState>,
    /// The backend has answered.
    pub answered: bool,
    /// How long it stays without a packet; the next packet sets what is usual for the protocol and state.
    pub timeout: Duration,
}

impl NewFlow {
    fn family(&self) -> Family {
        Family::of(self.original.destination.ip())
    }

    fn status(&self) -> Status {
        let answered = match self.answered {
            true => Status::SEEN_REPLY.0 | Status::ASSURED.0,
            false => 0,
        };
        Status(Status::CONFIRMED.0 | answered)
    }

    fn show(&self) -> String {
        format!(
            "{} by {}, protocol {}",
            show(&self.original),
            self.reply.source,
            self.protocol
        )
    }
}

impl Conntrack {
    /// Inserts an entry. Returns `false`, and changes nothing, if a packet of either of its directions belongs to an
    /// entry already.
    pub fn insert(&mut self, flow: &NewFlow) -> Result<bool, Error> {
        let sequence = self.socket.next_sequence();
        match self.socket.change(&insert_request(flow, sequence)) {
            Ok(()) => Ok(true),
            Err(Failure::Refused(cause)) if cause.kind() == io::ErrorKind::AlreadyExists => {
                Ok(false)
            }
            Err(failure) => Err(failure.into_error("insert", flow.show())),
        }
    }

    /// Inserts an entry in place of whatever stands in its way. Returns whether it stands now: packets of the same flow
    /// that go on coming untranslated may be quicker.
    pub fn replace(&mut self, flow: &NewFlow) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            if self.insert(flow)? {
                return Ok(true);
            }
            for tuple in [&flow.original, &flow.reply] {
                self.evict(flow.protocol, tuple)?;
            }
        }
        Ok(false)
    }

    /// Deletes the entry of the default zone to which a packet with these addresses belongs, in whatever direction.
    /// Returns whether there was one.
    pub fn evict(&mut self, protocol: u8, tuple: &Tuple) -> Result<bool, Error> {
        let request = evict_request(protocol, tuple, self.socket.next_sequence());
        was_there(self.socket.change(&request), "delete", || show(tuple))
    }

    /// Lets packets of a TCP entry pass that lie outside of the window as far as the kernel knows it: for when it will not
    /// see all of them. Returns whether the entry is there.
    pub fn be_liberal(&mut self, flow: &Flow) -> Result<bool, Error> {
        let request = liberal_request(flow, self.socket.next_sequence());
        was_there(self.socket.change(&request), "change", || {
            show(&flow.original)
        })
    }
}

pub(super) fn insert_request(flow: &NewFlow, sequence: u32) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::of_flows(ENTRY, flags, sequence, flow.family());
    message.tuple(entry::ORIGINAL, flow.protocol, &flow.original);
    message.tuple(entry::REPLY, flow.protocol, &flow.original.swapped());
    message.put(entry::STATUS, &flow.status().0.to_be_bytes());
    let seconds = u32::try_from(flow.timeout.as_secs()).unwrap_or(u32::MAX);
    message.put(entry::TIMEOUT, &seconds.max(1).to_be_bytes());
    // Both even where one changes nothing: else the kernel chooses, and may choose another port.
    message.nested(entry::DESTINATION_NAT, |m| m.range(flow.reply.source));
    message.nested(entry::SOURCE_NAT, |m| m.range(flow.reply.destination));
    if let Some(state) = flow.tcp {
        message.tcp_info(Some(state));
    }
    message.finish()
}

fn evict_request(protocol: u8, tuple: &Tuple, sequence: u32) -> Vec<u8> {
    let family = Family::of(tuple.destination.ip());
    let mut message = Message::of_flows(DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, family);
    message.tuple(entry::ORIGINAL, protocol, tuple);
    message.finish()
}

fn liberal_request(flow: &Flow, sequence: u32) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = Message::of_flows(ENTRY, flags, sequence, flow.family());
    message.tuple(entry::ORIGINAL, TCP, &flow.original);
    message.tcp_info(None);
    message.finish()
}

impl Message {
    /// One address and port to translate to.
    fn range(&mut self, to: SocketAddr) {
        match to.ip() {
            IpAddr::V4(ip) => {
                self.put(nat::V4_MIN, &ip.octets());
                self.put(nat::V4_MAX, &ip.octets());
            }
            IpAddr::V6(ip) => {
                self.put(nat::V6_MIN, &ip.octets());
                self.put(nat::V6_MAX, &ip.octets());
            }
        }
        let port = to.port().to_be_bytes();
        self.nested(nat::PROTOCOL, |message| {
            message.put(nat::PORT_MIN, &port);
            message.put(nat::PORT_MAX, &port);
        });
    }

    /// The state of a connection, and that its window is not looked at in either direction.
    fn tcp_info(&mut self, state: Option<TcpState>) {
        self.nested(entry::PROTOCOL_INFO, |message| {
            message.nested(info::TCP, |message| {
                if let Some(state) = state {
                    message.put(info::TCP_STATE, &[state as u8]);
                }
                // `struct nf_ct_tcp_flags`: flags, and which of them are meant.
                let liberal = [BE_LIBERAL; 2];
                message.put(info::TCP_FLAGS_ORIGINAL, &liberal);
                message.put(info::TCP_FLAGS_REPLY, &liberal);
            });
        });
    }
}
