//! What the kernel holds, for people.

use std::collections::BTreeSet;
use std::fmt::Write;

use seaway_ebpf_abi::{Config, FlowKey, FlowValue, NODE_ADDR_NODE_PORTS};
use seaway_kernel::filter::Side;
use seaway_kernel::{BpfFilter, NetNs};

use super::census::MapUse;
use super::config::EbpfConfig;
use super::error::EbpfError;
use super::filters;
use super::links;
use super::observe::counters;
use super::plan::{backend, frontend, networks, target};
use super::pods;
use super::tables::Tables;
use super::{bpffs, sys};
use crate::flows::{Entry, Names};

/// Flows shown one by one; beyond that only their number.
const FLOWS_SHOWN: usize = 200;

/// Reads the pins, and the filters in the node's namespace, and describes them.
pub(super) fn dump(
    settings: &EbpfConfig,
    netns: &NetNs,
    names: &Names,
) -> Result<String, EbpfError> {
    let dir = settings.pin_dir();
    let mut text = format!("pins: {}\n", dir.display());
    let Some(tables) = Tables::open(&dir)? else {
        text.push_str("nothing is loaded\n");
        return Ok(text);
    };
    describe_node(&mut text, &tables)?;
    pods::describe(&mut text, &dir, &tables.read_config()?)?;
    describe_links(&mut text, settings)?;
    describe_filters(&mut text, &filters::attached(netns)?);
    describe_services(&mut text, &tables, names)?;
    let mut flows = Vec::new();
    let of_flows = tables.flows.usage_by(|| {
        flows = tables.flows.entries()?;
        Ok((flows.len(), 0))
    })?;
    describe_maps(&mut text, &tables.usage(of_flows, None)?);
    describe_flows(&mut text, &flows, names);
    text.push_str("counters:\n");
    for (verdict, count) in counters(&dir)? {
        line(&mut text, format_args!("  {:<20} {count}", verdict.label()));
    }
    Ok(text)
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{what}");
}

fn describe_node(text: &mut String, tables: &Tables) -> Result<(), EbpfError> {
    let config: Config = tables.read_config()?;
    let addresses: Vec<String> = tables
        .node_addresses()?
        .iter()
        .map(|(addr, bits)| match bits & NODE_ADDR_NODE_PORTS {
            0 => format!("{} (no node ports)", addr.ip()),
            _ => addr.ip().to_string(),
        })
        .collect();
    line(
        text,
        format_args!("node addresses: {}", addresses.join(" ")),
    );
    for (name, family) in [("IPv4", &config.v4), ("IPv6", &config.v6)] {
        line(
            text,
            format_args!(
                "{name}: masquerade to pods with {}, to others with {}",
                family.overlay_addr.ip(),
                family.node_addr.ip()
            ),
        );
    }
    line(
        text,
        format_args!(
            "ports {}-{}; overlay link {}",
            config.snat_port_min, config.snat_port_max, config.overlay_ifindex
        ),
    );
    Ok(())
}

fn describe_links(text: &mut String, settings: &EbpfConfig) -> Result<(), EbpfError> {
    let dir = settings.link_dir();
    text.push_str("attached:\n");
    for name in bpffs::list(&dir)? {
        // The mark of a qdisc, not a link.
        if dir.join(&name).is_dir() {
            continue;
        }
        if let Some((_, info)) = links::existing(&dir.join(&name))? {
            let target = match info.target {
                sys::LinkTarget::Cgroup(0) | sys::LinkTarget::Interface(0) => "GONE".to_owned(),
                sys::LinkTarget::Cgroup(id) => format!("cgroup {id}"),
                sys::LinkTarget::Interface(index) => format!("link {index}"),
                sys::LinkTarget::Other => "unknown".to_owned(),
            };
            line(
                text,
                format_args!("  {name}: {target}, program {}", info.program),
            );
        }
    }
    Ok(())
}

fn describe_filters(text: &mut String, filters: &[BpfFilter]) {
    for filter in filters {
        let side = match filter.side {
            Side::Ingress => "in",
            Side::Egress => "out",
        };
        line(
            text,
            format_args!(
                "  filter_{}_{side}: link {}, program {} ({})",
                filter.link, filter.link, filter.program, filter.name
            ),
        );
    }
}

fn describe_services(text: &mut String, tables: &Tables, names: &Names) -> Result<(), EbpfError> {
    let image = tables.image()?;
    text.push_str("frontends:\n");
    for (key, value) in &image.frontends {
        let (ip, port) = (key.addr.ip(), u16::from_be(key.port));
        let service = names.find(ip, port, key.protocol, key.addr.is_unspecified());
        let service = service.map(|key| format!("{key} ")).unwrap_or_default();
        line(
            text,
            format_args!("  {} {service}{}", frontend(key), target(value)),
        );
    }
    text.push_str("backend sets:\n");
    for (id, set) in &image.sets {
        let backends: Vec<String> = set.iter().map(backend).collect();
        line(text, format_args!("  {id}: {}", backends.join(" ")));
    }
    text.push_str("source ranges:\n");
    for (id, list) in &image.ranges {
        line(text, format_args!("  {id}: {}", networks(list)));
    }
    Ok(())
}

fn describe_maps(text: &mut String, maps: &[MapUse]) {
    text.push_str("maps:\n");
    for map in maps {
        let evicted = match map.evictions() {
            Some(count) if count > 0 => format!(", {count} pushed out"),
            _ => String::new(),
        };
        line(
            text,
            format_args!(
                "  {:<12} {:>7} of {:>7} entries, {:>6} KiB{evicted}",
                map.name,
                map.entries,
                map.max_entries,
                map.memory_bytes / 1024
            ),
        );
    }
}

fn describe_flows(text: &mut String, flows: &[(FlowKey, FlowValue)], names: &Names) {
    let now = sys::monotonic_ns();
    // Listed while it changes, the table may show an entry twice.
    let forward: BTreeSet<Entry> = flows
        .iter()
        .filter_map(|(key, flow)| Entry::of_table(key, flow, now, names))
        .collect();
    line(
        text,
        format_args!("flows: {} ({} entries)", forward.len(), flows.len()),
    );
    for entry in forward.iter().take(FLOWS_SHOWN) {
        line(text, format_args!("  {entry}"));
    }
    if forward.len() > FLOWS_SHOWN {
        text.push_str("  and others: see `seaway-proxy flows --list`\n");
    }
}
