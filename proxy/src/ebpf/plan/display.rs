//! A plan in words: exactly what apply does, one line per step.

use std::fmt;

use seaway_ebpf_abi::frontend::{
    BACKEND_LOCAL, FRONTEND_FAR_LOCAL, FRONTEND_REJECT, KIND_CLUSTER_IP, KIND_EXTERNAL_IP,
    KIND_LOAD_BALANCER, KIND_NODE_PORT,
};
use seaway_ebpf_abi::{BackendValue, FrontendKey, FrontendValue, TCP, UDP};

use super::{EbpfPlan, Op};
use crate::ebpf::node::addr;

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

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteSet { set, backends } => {
                write!(f, "+ set {set}:")?;
                backends
                    .iter()
                    .try_for_each(|b| write!(f, " {}", backend(b)))
            }
            Self::WriteFrontend { key, value } => {
                write!(f, "+ frontend {} {}", frontend(key), target(value))
            }
            Self::DeleteFrontend { key } => write!(f, "- frontend {}", frontend(key)),
            Self::DeleteSet { set, slots } => write!(f, "- set {set} ({slots} backends)"),
        }
    }
}

/// `10.96.0.10:80/tcp`, or `node:30080/tcp`.
pub(crate) fn frontend(key: &FrontendKey) -> String {
    let port = u16::from_be(key.port);
    let protocol = protocol(key.protocol);
    if key.addr == 0 {
        format!("node:{port}/{protocol}")
    } else {
        format!("{}:{port}/{protocol}", addr(key.addr))
    }
}

/// `tcp`, `udp`, or the number.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
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
    format!("{}:{}{local}", addr(value.addr), u16::from_be(value.port))
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
    if near == far && keeps.is_empty() {
        format!("{kind} -> {near}")
    } else {
        format!("{kind} -> inside {near}, outside {far}{keeps}")
    }
}
