//! One line for each thing that happens to a flow.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use seaway_ebpf_abi::counters::TALLIES;
use seaway_ebpf_abi::event::{EVENT_FAR, EVENT_NODE_PORT, EVENT_SOCKET};
use seaway_ebpf_abi::{Event, Verdict};
use seaway_model::ObjectKey;
use serde_json::{Value, json};

use super::{Names, is_given, peer, protocol_name};

/// What the clock of the programs shows and what people call that.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub monotonic: u64,
    /// At the same moment.
    pub wall: SystemTime,
}

impl Clock {
    /// The wall clock's time of a moment before or after.
    fn at(&self, monotonic: u64) -> SystemTime {
        let moved = match monotonic.checked_sub(self.monotonic) {
            Some(later) => self.wall.checked_add(Duration::from_nanos(later)),
            None => {
                let earlier = Duration::from_nanos(self.monotonic - monotonic);
                self.wall.checked_sub(earlier)
            }
        };
        moved.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// An event with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    at: SystemTime,
    what: &'static str,
    verdict: &'static str,
    reason: Option<&'static str>,
    pub service: Option<ObjectKey>,
    protocol: String,
    client: SocketAddr,
    frontend: SocketAddr,
    source: SocketAddr,
    backend: SocketAddr,
    external: bool,
    /// The namespace of a socket, and whether it is the node's.
    socket: Option<(u64, bool)>,
}

impl Happened {
    /// Puts names to a record. `node_netns` is the cookie of the node's network namespace.
    pub fn new(event: &Event, clock: Clock, names: &Names, node_netns: u64) -> Self {
        let verdict = Verdict::ALL.get(event.verdict as usize).copied();
        let frontend = peer(event.frontend, event.frontend_port);
        let at_node_ports = event.flags & EVENT_NODE_PORT != 0;
        let service = names.find(
            frontend.ip(),
            frontend.port(),
            event.protocol,
            at_node_ports,
        );
        Self {
            at: clock.at(event.at),
            what: verdict.map_or("unknown", what),
            verdict: verdict.map_or("unknown", Verdict::label),
            reason: verdict.and_then(reason),
            service: service.cloned(),
            protocol: protocol_name(event.protocol),
            client: peer(event.client, event.client_port),
            frontend,
            source: peer(event.source, event.source_port),
            backend: peer(event.backend, event.backend_port),
            external: event.flags & EVENT_FAR != 0,
            socket: (event.flags & EVENT_SOCKET != 0)
                .then_some((event.netns, event.netns == node_netns)),
        }
    }

    fn direction(&self) -> &'static str {
        if self.external {
            "external"
        } else {
            "internal"
        }
    }

    fn time(&self) -> jiff::Timestamp {
        jiff::Timestamp::try_from(self.at).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let given = |addr: SocketAddr| is_given(addr).then(|| addr.to_string());
        json!({
            "time": format!("{:.6}", self.time()),
            "event": self.what,
            "verdict": self.verdict,
            "reason": self.reason,
            "service": self.service.as_ref().map(ToString::to_string),
            "protocol": self.protocol,
            "client": given(self.client),
            "frontend": self.frontend.to_string(),
            "source": given(self.source),
            "backend": given(self.backend),
            "direction": self.direction(),
            "seenBy": if self.socket.is_some() { "socket" } else { "packet" },
            "networkNamespace": self.socket.map(|(cookie, _)| cookie),
        })
    }
}

/// What to call it.
fn what(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::FlowClosed => "end",
        Verdict::Rejected | Verdict::SocketRefused => "refused",
        Verdict::TooLarge => "answered",
        other if other.is_refusal() => "dropped",
        _ => "begin",
    }
}

/// As in the metrics.
fn reason(verdict: Verdict) -> Option<&'static str> {
    let tally = verdict.tally().filter(|_| verdict.is_refusal())?;
    let found = TALLIES.iter().find(|(what, _)| *what == tally);
    found.map(|(_, reason)| *reason)
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time().to_zoned(jiff::tz::TimeZone::UTC);
        write!(f, "{} {:<8} ", time.strftime("%H:%M:%S%.3f"), self.what)?;
        match &self.service {
            Some(service) => write!(f, "{service} ")?,
            None => f.write_str("- ")?,
        }
        write!(f, "{} ", self.protocol)?;
        match self.socket {
            Some((_, true)) => f.write_str("socket of the node")?,
            Some((cookie, false)) => write!(f, "socket in namespace {cookie}")?,
            None => write!(f, "{}", self.client)?,
        }
        write!(f, " -> {}", self.frontend)?;
        if is_given(self.backend) {
            write!(f, " => {}", self.backend)?;
            if self.source != self.client && is_given(self.source) {
                write!(f, " as {}", self.source)?;
            }
        }
        write!(f, ", {}", self.direction())?;
        match self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
