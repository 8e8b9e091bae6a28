//! A flow as connection tracking has it, and as the flow table has it: the same flow said in two ways. Pure.
//!
//! [`adopt`] and [`hand_back`] are each other's inverse as far as packets are concerned: who knocks where, who answers,
//! and whom that one takes for the client.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use seaway_ebpf_abi::flow::{
    FLOW_DIRECT, FLOW_FAR, FLOW_HELD, FLOW_NODE, FLOW_NODE_PORT, FLOW_REVERSE, FLOW_SENT_ON,
    FLOW_STACK, STATE_ESTABLISHED, STATE_FIN_BACKEND, STATE_FIN_CLIENT, STATE_OPENED,
    STATE_REPLIED, STATE_RESET,
};
use seaway_ebpf_abi::{
    Addr, BackendValue, Config, FlowKey, FlowValue, FrontendKey, FrontendValue, Hop,
    NODE_ADDR_LOCAL, NODE_ADDR_NODE_PORTS, TCP, UDP,
};
use seaway_ebpf_logic::decide::{self, Choice, Client};
use seaway_ebpf_logic::flow::timeout;
use seaway_kernel::conntrack::{DEFAULT_ZONE, Flow, NewFlow, Status, TcpState, Tuple};

use super::gc;
use super::image::Image;
use super::node::Role;

#[cfg(test)]
mod tests;

/// What has to be known of the node.
pub(super) struct Node<'a> {
    pub(super) image: &'a Image,
    pub(super) config: &'a Config,
    /// Its addresses, with their `NODE_ADDR_*` bits.
    pub(super) addresses: &'a BTreeMap<Addr, u32>,
    /// By which link the packets of a client arrive, for every client of the entries.
    pub(super) links: &'a BTreeMap<IpAddr, Place>,
}

/// A link and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) role: Role,
}

/// Both entries of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Adopted {
    pub(super) forward: (FlowKey, FlowValue),
    /// None where connection tracking keeps the flow.
    pub(super) reverse: Option<(FlowKey, FlowValue)>,
}

/// Why an entry of connection tracking is not taken over. All but the first are flows of Services: they go on by their
/// entries, which no rule is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Left {
    /// Of no Service, or of one that is gone.
    NotOurs,
    /// Of a process of the node, whose packets do not pass the programs.
    OwnSocket,
    /// A connection to a process of the node, which the stack itself delivers.
    NodeBackend,
    /// From where no program looks.
    NoProgram,
    /// Over, but for what may still come late.
    Closed,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "of no Service",
            Self::OwnSocket => "of processes of the node",
            Self::NodeBackend => "to processes of the node",
            Self::NoProgram => "from links without programs",
            Self::Closed => "closing",
        })
    }
}

/// Takes over a flow of connection tracking. `now` is `CLOCK_MONOTONIC` in nanoseconds.
///
/// # Errors
///
/// The reason why connection tracking keeps it.
pub(super) fn adopt(entry: &Flow, node: &Node<'_>, now: u64) -> Result<Adopted, Left> {
    let translated = entry.status.contains(Status::DESTINATION_NAT);
    let carried = entry.protocol == TCP || entry.protocol == UDP;
    if !translated || !carried || entry.zone != DEFAULT_ZONE {
        return Err(Left::NotOurs);
    }
    let key = key_of(entry);
    let (frontend, node_port) = node.frontend(&key).ok_or(Left::NotOurs)?;
    let state = state(entry).ok_or(Left::Closed)?;
    if node.is_own(&key.src) {
        return Err(Left::OwnSocket);
    }
    let client = entry.original.source.ip();
    let Place { index, role } = *node.links.get(&client).ok_or(Left::NoProgram)?;
    if role == Role::Overlay {
        return Err(Left::NoProgram);
    }
    // The backend's packet the other way round is what leaves here for it.
    let there = self::key(entry.protocol, &entry.reply.swapped());
    if node.is_own(&there.dst) {
        return match entry.protocol {
            // A datagram would begin anew where it is not known.
            UDP => Ok(Adopted {
                forward: (key, with_stack(state, now)),
                reverse: None,
            }),
            _ => Err(Left::NodeBackend),
        };
    }
    let is_pod = decide::is_pod(node.config, &key.src, role == Role::Pod);
    let knocks = if is_pod { Client::Near } else { Client::Far };
    let mut flags = 0;
    if node_port {
        flags |= FLOW_NODE_PORT;
    }
    if knocks == Client::Far {
        flags |= FLOW_FAR;
    }
    let forward = FlowValue {
        last_seen: now,
        src: there.src,
        dst: there.dst,
        sport: there.sport,
        dport: there.dport,
        ifindex: 0,
        set: node.set(frontend, knocks, &there),
        state,
        flags,
        ..FlowValue::default()
    };
    let reverse = FlowValue {
        src: key.dst,
        dst: key.src,
        sport: key.dport,
        dport: key.sport,
        ifindex: index,
        state: 0,
        flags: flags | FLOW_REVERSE,
        ..forward
    };
    Ok(Adopted {
        forward: (key, forward),
        reverse: Some((there.swapped(), reverse)),
    })
}

/// Whether an entry may be for one of the frontends, as far as they say it.
pub(super) fn is_for(image: &Image, entry: &Flow) -> bool {
    let exact = exact(&key_of(entry));
    let addr = exact.addr.any();
    let frontends = &image.frontends;
    frontends.contains_key(&exact) || frontends.contains_key(&FrontendKey { addr, ..exact })
}

/// The key under which the flow table has an entry.
pub(super) fn key_of(entry: &Flow) -> FlowKey {
    key(entry.protocol, &entry.original)
}

fn exact(key: &FlowKey) -> FrontendKey {
    FrontendKey {
        addr: key.dst,
        port: key.dport,
        protocol: key.protocol,
        pad: 0,
    }
}

/// The entry of a datagram's flow that connection tracking keeps.
fn with_stack(state: u8, now: u64) -> FlowValue {
    FlowValue {
        last_seen: now,
        state,
        flags: FLOW_STACK,
        ..FlowValue::default()
    }
}

/// A flow on its way back to connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandedBack {
    pub(super) entry: NewFlow,
    /// The backend is a process of the node: connection tracking has an entry of what we made of the packets.
    pub(super) to_node: bool,
}

/// What connection tracking has to be told of an entry of the flow table; `None` for one half of a flow, for what it has or need
/// not have, and for what [stays](is_direct) with the programs.
pub(super) fn hand_back(key: &FlowKey, value: &FlowValue, now: u64) -> Option<HandedBack> {
    let over = value.state & STATE_RESET != 0;
    if value.flags & (FLOW_REVERSE | FLOW_STACK | FLOW_SENT_ON | FLOW_DIRECT) != 0 || over {
        return None;
    }
    let silent = now.saturating_sub(value.last_seen);
    let left = timeout(key.protocol, value.state).checked_sub(silent)?;
    let there = value.translated(key.protocol);
    Some(HandedBack {
        entry: NewFlow {
            protocol: key.protocol,
            original: tuple(key),
            reply: tuple(&there).swapped(),
            tcp: (key.protocol == TCP).then(|| tcp_state(value.state)),
            answered: value.state & STATE_REPLIED != 0,
            timeout: Duration::from_nanos(left),
        },
        to_node: value.flags & FLOW_NODE != 0,
    })
}

/// Whether a flow is going on in which another node answers, or the other node's clients are answered here.
pub(super) fn is_direct(key: &FlowKey, value: &FlowValue, now: u64) -> bool {
    let silent = now.saturating_sub(value.last_seen);
    value.flags & (FLOW_SENT_ON | FLOW_DIRECT) != 0
        && value.flags & FLOW_REVERSE == 0
        && value.state & STATE_RESET == 0
        && silent <= gc::timeout(key.protocol, value)
}

/// The entry of a flow while it is on its way, and once connection tracking has it.
pub(super) fn on_the_way(value: &FlowValue) -> FlowValue {
    FlowValue {
        flags: value.flags | FLOW_HELD,
        hop: Hop::default(),
        ..*value
    }
}

/// As [`on_the_way`], afterwards.
pub(super) fn handed_over(value: &FlowValue) -> FlowValue {
    FlowValue {
        flags: value.flags & !FLOW_HELD | FLOW_STACK,
        hop: Hop::default(),
        ..*value
    }
}

impl Node<'_> {
    /// The frontend that a packet is for, and whether it is one of the node's addresses.
    fn frontend(&self, key: &FlowKey) -> Option<(&FrontendValue, bool)> {
        let exact = exact(key);
        let any = FrontendKey {
            addr: key.dst.any(),
            ..exact
        };
        let frontends = &self.image.frontends;
        match frontends.get(&exact) {
            Some(value) => Some((value, false)),
            None if self.bits(&key.dst) & NODE_ADDR_NODE_PORTS != 0 => {
                Some((frontends.get(&any)?, true))
            }
            None => None,
        }
    }

    fn bits(&self, addr: &Addr) -> u32 {
        self.addresses.get(addr).copied().unwrap_or(0)
    }

    fn is_own(&self, addr: &Addr) -> bool {
        self.bits(addr) & NODE_ADDR_LOCAL != 0
    }

    /// The set of the frontend that the backend is in; 0, which none is, if it has left the Service.
    fn set(&self, frontend: &FrontendValue, client: Client, there: &FlowKey) -> u32 {
        let Choice::Set { set, .. } = decide::choose(frontend, client) else {
            return 0;
        };
        let is_it =
            |backend: &BackendValue| backend.addr == there.dst && backend.port == there.dport;
        match self.image.sets.get(&set) {
            Some(backends) if backends.iter().any(is_it) => set,
            _ => 0,
        }
    }
}

/// `None` if the flow is over.
fn state(entry: &Flow) -> Option<u8> {
    const ANSWERED: u8 = STATE_OPENED | STATE_REPLIED;
    const OPEN: u8 = ANSWERED | STATE_ESTABLISHED;
    if entry.protocol == UDP {
        let answered = entry.status.contains(Status::SEEN_REPLY);
        return Some(if answered { ANSWERED } else { STATE_OPENED });
    }
    Some(match entry.tcp? {
        TcpState::None | TcpState::SynSent | TcpState::SynSent2 => STATE_OPENED,
        TcpState::SynReceived => ANSWERED,
        TcpState::Established => OPEN,
        // Whose FIN it was is not said; either is as good.
        TcpState::FinWait | TcpState::CloseWait => OPEN | STATE_FIN_CLIENT,
        TcpState::LastAck => OPEN | STATE_FIN_CLIENT | STATE_FIN_BACKEND,
        TcpState::TimeWait | TcpState::Close => return None,
    })
}

fn tcp_state(state: u8) -> TcpState {
    const FINS: u8 = STATE_FIN_CLIENT | STATE_FIN_BACKEND;
    match state & FINS {
        FINS => TcpState::LastAck,
        // Not `FinWait`, which is given up much earlier.
        one if one != 0 => TcpState::CloseWait,
        _ if state & STATE_ESTABLISHED != 0 => TcpState::Established,
        _ if state & STATE_REPLIED != 0 => TcpState::SynReceived,
        _ => TcpState::SynSent,
    }
}

/// The key under which the flow table has packets with these addresses.
pub(super) fn key(protocol: u8, tuple: &Tuple) -> FlowKey {
    FlowKey {
        src: tuple.source.ip().into(),
        dst: tuple.destination.ip().into(),
        sport: tuple.source.port().to_be(),
        dport: tuple.destination.port().to_be(),
        protocol,
        pad: [0; 3],
    }
}

fn tuple(key: &FlowKey) -> Tuple {
    Tuple {
        source: SocketAddr::new(key.src.ip(), u16::from_be(key.sport)),
        destination: SocketAddr::new(key.dst.ip(), u16::from_be(key.dport)),
    }
}
