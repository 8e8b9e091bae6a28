//! Other programs on this node that serve Services: two at once undo each other's work.
//!
//! Known by what they leave in the kernel (chains, tables, links, pins) and by their processes, in this network
//! namespace only.

mod observe;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use observe::observe;

/// What is on this node, as names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Of every iptables variant and family.
    pub chains: Vec<String>,
    /// Family and name, as `ip kube-proxy`.
    pub nft_tables: Vec<String>,
    pub links: Vec<String>,
    /// In this network namespace: name and number.
    pub processes: Vec<(String, u32)>,
    /// Of [`PINS`], those that exist.
    pub pins: Vec<String>,
}

/// Directories and maps by which eBPF data planes are known.
pub const PINS: [&str; 2] = [
    "/sys/fs/bpf/tc/globals/cilium_lb4_services_v2",
    "/sys/fs/bpf/calico",
];

/// Another program that serves Services, or helps one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    pub name: &'static str,
    /// What it is known by.
    pub evidence: Vec<String>,
    /// Whether it does our work, so that only one can run.
    pub in_our_place: bool,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}): {}",
            self.name,
            self.evidence.join(", "),
            self.remedy
        )
    }
}

/// How a program is known.
struct Signature {
    name: &'static str,
    in_our_place: bool,
    remedy: &'static str,
    /// Whole names; a `*` at the end stands for anything.
    chains: &'static [&'static str],
    nft_tables: &'static [&'static str],
    links: &'static [&'static str],
    processes: &'static [&'static str],
    pins: &'static [&'static str],
}

/// Only what serves counts. The chains of the kubelet (`KUBE-FIREWALL`, `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`) are
/// none of kube-proxy's, and `kube-proxy --cleanup` leaves `KUBE-PROXY-CANARY` and `KUBE-MARK-MASQ` behind (1.30).
const SIGNATURES: [Signature; 5] = [
    Signature {
        name: "kube-proxy",
        in_our_place: true,
        remedy: "stop it on this node, then remove its rules with `kube-proxy --cleanup` (docs/replace-kube-proxy.md)",
        chains: &["KUBE-SERVICES", "KUBE-NODEPORTS"],
        nft_tables: &["ip kube-proxy", "ip6 kube-proxy"],
        links: &["kube-ipvs0"],
        processes: &["kube-proxy"],
        pins: &[],
    },
    Signature {
        name: "Cilium",
        in_our_place: true,
        remedy: "set kubeProxyReplacement to false there if it shall only connect pods, then run with \
                 --ignore-other-proxies",
        chains: &["CILIUM_*"],
        nft_tables: &[],
        links: &["cilium_host", "cilium_net"],
        processes: &["cilium-agent"],
        pins: &["/sys/fs/bpf/tc/globals/cilium_lb4_services_v2"],
    },
    Signature {
        name: "Calico in eBPF mode",
        in_our_place: true,
        remedy: "set bpfEnabled to false there, or leave Services to it",
        chains: &[],
        nft_tables: &[],
        links: &["bpfin.cali", "bpfout.cali"],
        processes: &[],
        pins: &["/sys/fs/bpf/calico"],
    },
    Signature {
        name: "kube-router",
        in_our_place: true,
        remedy: "run it with --run-service-proxy=false, then `kube-router --cleanup-config` once",
        chains: &["KUBE-ROUTER-SERVICES"],
        nft_tables: &[],
        links: &["kube-dummy-if"],
        processes: &["kube-router"],
        pins: &[],
    },
    Signature {
        name: "Calico",
        in_our_place: false,
        remedy: "connects pods and applies policy; both can run",
        chains: &["cali-*"],
        nft_tables: &["ip calico", "ip6 calico"],
        links: &[],
        processes: &["calico-node", "calico-felix"],
        pins: &[],
    },
];

/// How many names of a kind are shown.
const SHOWN: usize = 2;

/// The programs that these traces are of.
pub fn find(traces: &Traces) -> Vec<Peer> {
    SIGNATURES
        .iter()
        .filter_map(|signature| {
            let evidence = evidence(signature, traces);
            (!evidence.is_empty()).then_some(Peer {
                name: signature.name,
                evidence,
                in_our_place: signature.in_our_place,
                remedy: signature.remedy,
            })
        })
        .collect()
}

fn evidence(signature: &Signature, traces: &Traces) -> Vec<String> {
    let named = |kind: &str, names: &[String], patterns: &[&str]| -> Vec<String> {
        names
            .iter()
            .filter(|name| patterns.iter().any(|pattern| matches(pattern, name)))
            .take(SHOWN)
            .map(|name| format!("{kind} {name}"))
            .collect()
    };
    let mut evidence = named("chain", &traces.chains, signature.chains);
    evidence.extend(named(
        "nftables table",
        &traces.nft_tables,
        signature.nft_tables,
    ));
    evidence.extend(named("link", &traces.links, signature.links));
    evidence.extend(named("pin", &traces.pins, signature.pins));
    evidence.extend(
        traces
            .processes
            .iter()
            .filter(|(name, _)| signature.processes.contains(&name.as_str()))
            .map(|(name, pid)| format!("process {name} {pid}")),
    );
    evidence
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Refuses to run beside one that does our work.
pub fn refuse(peers: &[Peer]) -> anyhow::Result<()> {
    let others: Vec<String> = peers
        .iter()
        .filter(|peer| peer.in_our_place)
        .map(ToString::to_string)
        .collect();
    anyhow::ensure!(
        others.is_empty(),
        "another proxy serves Services on this node, and two would fight: {}; to run all the same, give \
         --ignore-other-proxies",
        others.join("; ")
    );
    Ok(())
}
