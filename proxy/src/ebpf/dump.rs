//! What the kernel holds, read into a value: in words for people, in JSON for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::config::CONFIG_POD_FAST;
use seaway_ebpf_abi::{Config, NODE_ADDR_NODE_PORTS};
use seaway_kernel::NetNs;
use seaway_kernel::filter::Side;
use seaway_model::Family;
use serde::{Serialize, Serializer};

use super::config::EbpfConfig;
use super::error::EbpfError;
use super::observe::counters;
use super::plan::{backend, frontend, target};
use super::tables::Tables;
use super::wanted::Range;
use super::{bpffs, filters, links, pods, sys};
use crate::flows::{Entry, Names};

mod display;

/// What eBPF mode has on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Directory of the pins.
    pins: String,
    /// None: nothing is loaded.
    loaded: Option<Loaded>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded {
    node_addresses: Vec<NodeAddress>,
    masquerade: [Masquerade; 2],
    /// The first and the last that are given to masqueraded flows.
    ports: [u16; 2],
    /// 0: there is none.
    overlay_link: u32,
    /// Whether packets between pods go past the stack.
    past_the_stack: bool,
    pods: Vec<Pod>,
    peers: Vec<Peer>,
    attached: Vec<Attached>,
    frontends: Vec<Frontend>,
    backend_sets: BTreeMap<u32, Vec<String>>,
    source_ranges: BTreeMap<u32, Vec<String>>,
    maps: Vec<Map>,
    /// How many there are; one by one by `flows --list`.
    #[serde(serialize_with = "number")]
    flows: BTreeSet<Entry>,
    /// Entries of the flow table, of which a flow has two.
    flow_entries: usize,
    #[serde(serialize_with = "by_label")]
    counters: Vec<(&'static str, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeAddress {
    address: IpAddr,
    node_ports: bool,
}

/// By which address clients are masqueraded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Masquerade {
    family: Family,
    to_pods: IpAddr,
    to_others: IpAddr,
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) address: IpAddr,
    pub(super) link: u32,
    pub(super) past_the_stack: bool,
}

/// Pods of other nodes; elsewhere without a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Peer {
    pub(super) network: IpNetwork,
    pub(super) node: Option<IpAddr>,
    pub(super) vni: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attached {
    name: String,
    to: Target,
    program: u32,
    /// The name of a filter's program.
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Target {
    Cgroup(u64),
    Link(u32),
    Gone,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Frontend {
    frontend: String,
    service: Option<String>,
    target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Map {
    name: &'static str,
    entries: u64,
    max_entries: u64,
    memory_bytes: u64,
    /// None: it never makes room by itself.
    evictions: Option<u64>,
}

fn number<S: Serializer>(flows: &BTreeSet<Entry>, serializer: S) -> Result<S::Ok, S::Error> {
    flows.len().serialize(serializer)
}

fn by_label<S: Serializer>(
    counters: &[(&'static str, u64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counters.iter().copied())
}

/// Reads the pins, and the filters in the node's namespace.
pub(super) fn dump(settings: &EbpfConfig, netns: &NetNs, names: &Names) -> Result<Held, EbpfError> {
    let dir = settings.pin_dir();
    let pins = dir.display().to_string();
    let Some(tables) = Tables::open(&dir)? else {
        return Ok(Held { pins, loaded: None });
    };
    let config: Config = tables.read_config()?;
    let image = tables.image()?;
    let mut entries = Vec::new();
    let of_flows = tables.flows.usage_by(|| {
        entries = tables.flows.entries()?;
        Ok((entries.len(), 0))
    })?;
    let usage = tables.usage(of_flows, None)?;
    let now = sys::monotonic_ns();
    let (pods, peers) = pods::held(&dir)?;
    let loaded = Loaded {
        node_addresses: tables
            .node_addresses()?
            .iter()
            .map(|(addr, bits)| NodeAddress {
                address: addr.ip(),
                node_ports: bits & NODE_ADDR_NODE_PORTS != 0,
            })
            .collect(),
        masquerade: [(Family::V4, &config.v4), (Family::V6, &config.v6)].map(
            |(family, addresses)| Masquerade {
                family,
                to_pods: addresses.overlay_addr.ip(),
                to_others: addresses.node_addr.ip(),
            },
        ),
        ports: [config.snat_port_min, config.snat_port_max],
        overlay_link: config.overlay_ifindex,
        past_the_stack: config.flags & CONFIG_POD_FAST != 0,
        pods,
        peers,
        attached: attached(settings, netns)?,
        frontends: image
            .frontends
            .iter()
            .map(|(key, value)| {
                let (ip, port) = (key.addr.ip(), u16::from_be(key.port));
                let service = names.find(ip, port, key.protocol, key.addr.is_unspecified());
                Frontend {
                    frontend: frontend(key),
                    service: service.map(ToString::to_string),
                    target: target(value),
                }
            })
            .collect(),
        backend_sets: image
            .sets
            .iter()
            .map(|(id, set)| (*id, set.iter().map(backend).collect()))
            .collect(),
        source_ranges: image
            .ranges
            .iter()
            .map(|(id, list)| (*id, list.iter().map(Range::show).collect()))
            .collect(),
        maps: usage
            .iter()
            .map(|map| Map {
                name: map.name,
                entries: map.entries,
                max_entries: map.max_entries,
                memory_bytes: map.memory_bytes,
                evictions: map.evictions(),
            })
            .collect(),
        flow_entries: entries.len(),
        // Listed while it changes, the table may show an entry twice.
        flows: entries
            .iter()
            .filter_map(|(key, flow)| Entry::of_table(key, flow, now, names))
            .collect(),
        counters: counters(&dir)?
            .into_iter()
            .map(|(verdict, count)| (verdict.label(), count))
            .collect(),
    };
    Ok(Held {
        pins,
        loaded: Some(loaded),
    })
}

fn attached(settings: &EbpfConfig, netns: &NetNs) -> Result<Vec<Attached>, EbpfError> {
    let dir = settings.link_dir();
    let mut all = Vec::new();
    for name in bpffs::list(&dir)? {
        // The mark of a qdisc, not a link.
        if dir.join(&name).is_dir() {
            continue;
        }
        if let Some((_, info)) = links::existing(&dir.join(&name))? {
            all.push(Attached {
                name,
                to: match info.target {
                    sys::LinkTarget::Cgroup(0) | sys::LinkTarget::Interface(0) => Target::Gone,
                    sys::LinkTarget::Cgroup(id) => Target::Cgroup(id),
                    sys::LinkTarget::Interface(index) => Target::Link(index),
                    sys::LinkTarget::Other => Target::Unknown,
                },
                program: info.program,
                filter: None,
            });
        }
    }
    let filters = filters::attached(netns)?.into_iter().map(|filter| {
        let side = match filter.side {
            Side::Ingress => "in",
            Side::Egress => "out",
        };
        Attached {
            name: format!("filter_{}_{side}", filter.link),
            to: Target::Link(filter.link),
            program: filter.program,
            filter: Some(filter.name),
        }
    });
    all.extend(filters);
    Ok(all)
}

#[cfg(test)]
mod tests;
