//! A plan in words: exactly what apply does, one line per step.

use std::fmt;
use std::net::SocketAddr;

use seaway_ebpf_abi::frontend::{
    BACKEND_LOCAL, FRONTEND_FAR_LOCAL, FRONTEND_MAGLEV, FRONTEND_NETFILTER, FRONTEND_REJECT,
    KIND_CLUSTER_IP, KIND_EXTERNAL_IP, KIND_LOAD_BALANCER, KIND_NODE_PORT,
};
use seaway_ebpf_abi::{Addr, BackendValue, FrontendKey, FrontendValue, SCTP, TCP, UDP};

use super::{EbpfPlan, Op};
use crate::changes::{Changes, Line, Place, TableChange};
use crate::ebpf::wanted::Range;

impl fmt::Display for EbpfPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.activation {
            writeln!(f, "! {line}")?;
        }
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        for notice in &self.notices {
            writeln!(f, "# {notice}")?;
        }
        if self.activation.is_empty() && self.ops.is_empty() {
            writeln!(f, "# nothing to do")?;
        }
        Ok(())
    }
}

impl EbpfPlan {
    /// The same by map.
    pub(in crate::ebpf) fn changes(&self) -> Changes {
        let mut tables: Vec<TableChange> = Vec::new();
        for op in &self.ops {
            let (map, line) = op.told();
            let place = Place::Map { map };
            match tables.iter_mut().find(|table| table.place == place) {
                Some(table) => table.lines.push(line),
                None => tables.push(TableChange {
                    place,
                    lines: vec![line],
                }),
            }
        }
        Changes {
            steps: self.activation.clone(),
            tables,
            notices: self.notices.clone(),
        }
    }
}

impl Op {
    /// The map that it is about, and what happens there.
    fn told(&self) -> (&'static str, Line) {
        match self {
            Self::WriteSet { set, backends } => {
                let shown: Vec<String> = backends.iter().map(backend).collect();
                let text = format!("set {set}: {}", shown.join(" "));
                ("backendSets", Line::Added(text))
            }
            Self::DeleteSet { set, slots } => {
                let text = format!("set {set} ({slots} backends)");
                ("backendSets", Line::Removed(text))
            }
            Self::WriteTable { set, backends, .. } => {
                let text = format!("Maglev table of set {set} ({} backends)", backends.len());
                ("maglevTables", Line::Added(text))
            }
            Self::DeleteTable { set } => {
                let text = format!("Maglev table of set {set}");
                ("maglevTables", Line::Removed(text))
            }
            Self::WriteRanges { ranges, list } => {
                let text = format!("ranges {ranges}: {}", networks(list));
                ("sourceRanges", Line::Added(text))
            }
            Self::DeleteRanges { ranges, list } => {
                let text = format!("ranges {ranges} ({} networks)", list.len());
                ("sourceRanges", Line::Removed(text))
            }
            Self::WriteFrontend { key, value } => {
                let text = format!("frontend {} {}", frontend(key), target(value));
                ("frontends", Line::Added(text))
            }
            Self::DeleteFrontend { key } => {
                let text = format!("frontend {}", frontend(key));
                ("frontends", Line::Removed(text))
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.told().1 {
            Line::Added(text) => write!(f, "+ {text}"),
            Line::Removed(text) => write!(f, "- {text}"),
        }
    }
}

/// The networks of a set of source ranges.
fn networks(list: &[Range]) -> String {
    let shown: Vec<String> = list.iter().map(Range::show).collect();
    shown.join(" ")
}

/// `10.96.0.10:80/tcp`; `node:30080/tcp`, with the family if it is not IPv4; or what a cluster IP has no frontend for.
pub(crate) fn frontend(key: &FrontendKey) -> String {
    let port = u16::from_be(key.port);
    if key.port == 0 && key.protocol == 0 {
        return format!("{}, everything else", key.addr.ip());
    }
    let protocol = protocol(key.protocol);
    if key.port == 0 {
        return format!("{}, all {protocol}", key.addr.ip());
    }
    if key.addr == Addr::ANY_V4 {
        format!("node:{port}/{protocol}")
    } else if key.addr == Addr::ANY_V6 {
        format!("node(IPv6):{port}/{protocol}")
    } else {
        format!("{}/{protocol}", SocketAddr::new(key.addr.ip(), port))
    }
}

/// `tcp`, `udp`, or the number.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// `10.244.1.5:8080`, with `(local)` if it is on this node.
pub(crate) fn backend(value: &BackendValue) -> String {
    let local = if value.flags & BACKEND_LOCAL != 0 {
        "(local)"
    } else {
        ""
    };
    let addr = SocketAddr::new(value.addr.ip(), u16::from_be(value.port));
    format!("{addr}{local}")
}

/// The sets of a frontend and what happens when they are empty.
pub(crate) fn target(value: &FrontendValue) -> String {
    let kind = match value.kind {
        KIND_CLUSTER_IP => "ClusterIP",
        KIND_NODE_PORT => "NodePort",
        KIND_EXTERNAL_IP => "ExternalIP",
        KIND_LOAD_BALANCER => "LoadBalancer",
        _ => "unknown",
    };
    if value.flags & FRONTEND_NETFILTER != 0 {
        return format!("{kind} -> left to netfilter");
    }
    let empty = if value.flags & FRONTEND_REJECT != 0 {
        "reject"
    } else {
        "drop"
    };
    let set = |id: u32, count: u32| {
        if count == 0 {
            empty.to_owned()
        } else {
            format!("set {id} ({count})")
        }
    };
    let near = set(value.near_set, value.near_count);
    let far = set(value.far_set, value.far_count);
    let keeps = if value.flags & FRONTEND_FAR_LOCAL != 0 {
        ", clients keep their address"
    } else {
        ""
    };
    let mut more = keeps.to_owned();
    if value.ranges != 0 {
        more += &format!(", from ranges {} only", value.ranges);
    }
    if value.flags & FRONTEND_MAGLEV != 0 {
        more += ", by Maglev";
    }
    if value.affinity_timeout != 0 {
        more += &format!(", clients stay for {} s", value.affinity_timeout);
    }
    if near == far && keeps.is_empty() {
        format!("{kind} -> {near}{more}")
    } else {
        format!("{kind} -> inside {near}, outside {far}{more}")
    }
}
