//! One line for each flow that there is.

use std::fmt;
use std::net::SocketAddr;

use seaway_ebpf_abi::flow::{
    FLOW_NODE_PORT, STATE_ESTABLISHED, STATE_FIN_BACKEND, STATE_FIN_CLIENT, STATE_REPLIED,
    STATE_RESET,
};
use seaway_ebpf_abi::{FlowKey, FlowValue, TCP};
use seaway_ebpf_logic::flow::{is_closed, timeout};
use seaway_kernel::conntrack::{Flow, Status, TcpState};
use seaway_model::ObjectKey;
use serde_json::{Value, json};

use super::{Names, peer, protocol_name};

/// A flow through a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub service: Option<ObjectKey>,
    protocol: String,
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    source: SocketAddr,
    state: &'static str,
    /// Seconds since the last packet and until it is forgotten without another, where they are known.
    age: Option<(u64, u64)>,
}

const SECOND: u64 = 1_000_000_000;

impl Entry {
    /// From the flow table of eBPF mode; `None` for the entry that replies find. `now` is `CLOCK_MONOTONIC`.
    pub fn of_table(key: &FlowKey, flow: &FlowValue, now: u64, names: &Names) -> Option<Self> {
        if flow.is_reverse() {
            return None;
        }
        let frontend = peer(key.dst, key.dport);
        let at_node_ports = flow.flags & FLOW_NODE_PORT != 0;
        let service = names.find(frontend.ip(), frontend.port(), key.protocol, at_node_ports);
        let idle = now.saturating_sub(flow.last_seen);
        let left = timeout(key.protocol, flow.state).saturating_sub(idle);
        Some(Self {
            service: service.cloned(),
            protocol: protocol_name(key.protocol),
            client: peer(key.src, key.sport),
            frontend,
            backend: peer(flow.dst, flow.dport),
            source: peer(flow.src, flow.sport),
            state: state(key.protocol, flow.state),
            age: Some((idle / SECOND, left / SECOND)),
        })
    }

    /// From connection tracking; `None` for a flow of no Service. `is_node` says whether an address serves node ports.
    pub fn of_conntrack(
        flow: &Flow,
        names: &Names,
        is_node: impl Fn(&std::net::IpAddr) -> bool,
    ) -> Option<Self> {
        let frontend = flow.original.destination;
        let (ip, port) = (frontend.ip(), frontend.port());
        if !flow.status.contains(Status::DESTINATION_NAT) {
            return None;
        }
        let service = names.find(ip, port, flow.protocol, is_node(&ip))?;
        let replied = flow.status.contains(Status::SEEN_REPLY);
        Some(Self {
            service: Some(service.clone()),
            protocol: protocol_name(flow.protocol),
            client: flow.original.source,
            frontend,
            backend: flow.reply.source,
            source: flow.reply.destination,
            state: flow.tcp.map_or(replied_word(replied), tcp_state),
            age: None,
        })
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "service": self.service.as_ref().map(ToString::to_string),
            "protocol": self.protocol,
            "client": self.client.to_string(),
            "frontend": self.frontend.to_string(),
            "source": self.source.to_string(),
            "backend": self.backend.to_string(),
            "state": self.state,
            "idleSeconds": self.age.map(|(idle, _)| idle),
            "expiresSeconds": self.age.map(|(_, left)| left),
        })
    }
}

fn replied_word(replied: bool) -> &'static str {
    if replied { "replied" } else { "unreplied" }
}

/// The `STATE_*` bits in a word.
fn state(protocol: u8, state: u8) -> &'static str {
    let has = |bits: u8| state & bits != 0;
    if protocol != TCP {
        return replied_word(has(STATE_REPLIED));
    }
    match () {
        () if has(STATE_RESET) => "reset",
        () if is_closed(state) => "closed",
        () if has(STATE_FIN_CLIENT | STATE_FIN_BACKEND) => "closing",
        () if has(STATE_ESTABLISHED) => "established",
        () if has(STATE_REPLIED) => "syn_received",
        () => "syn_sent",
    }
}

/// The same words for connection tracking's states.
fn tcp_state(state: TcpState) -> &'static str {
    match state {
        TcpState::None | TcpState::SynSent | TcpState::SynSent2 => "syn_sent",
        TcpState::SynReceived => "syn_received",
        TcpState::Established => "established",
        TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck => "closing",
        TcpState::TimeWait => "closed",
        TcpState::Close => "reset",
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service} ")?,
            None => f.write_str("- ")?,
        }
        write!(
            f,
            "{} {} -> {} => {}",
            self.protocol, self.client, self.frontend, self.backend
        )?;
        if self.source != self.client {
            write!(f, " as {}", self.source)?;
        }
        write!(f, " {}", self.state)?;
        match self.age {
            Some((idle, left)) => write!(f, ", silent {idle} s, expires in {left} s"),
            None => Ok(()),
        }
    }
}
