//! What the kernel holds, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use seaway_ebpf_abi::{Addr, Config, FlowKey, FlowValue, NODE_ADDR_NODE_PORTS};

use super::config::EbpfConfig;
use super::error::EbpfError;
use super::links;
use super::observe::counters;
use super::plan::{backend, frontend, networks, protocol, target};
use super::tables::Tables;
use super::{bpffs, sys};

/// Flows shown one by one; beyond that only their number.
const FLOWS_SHOWN: usize = 200;

/// Reads the pins and describes them.
pub(super) fn dump(settings: &EbpfConfig) -> Result<String, EbpfError> {
    let dir = settings.pin_dir();
    let mut text = format!("pins: {}\n", dir.display());
    let Some(tables) = Tables::open(&dir)? else {
        text.push_str("nothing is loaded\n");
        return Ok(text);
    };
    describe_node(&mut text, &tables)?;
    describe_links(&mut text, settings)?;
    describe_services(&mut text, &tables)?;
    describe_flows(&mut text, tables.flows.entries()?);
    line(
        &mut text,
        format_args!(
            "clients remembered: {}; sockets: {} TCP, {} UDP, {} with a steady backend",
            tables.affinity.entries()?.len(),
            tables.sockets_tcp.entries()?.len(),
            tables.sockets_udp.entries()?.len(),
            tables.steady.entries()?.len()
        ),
    );
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

fn describe_services(text: &mut String, tables: &Tables) -> Result<(), EbpfError> {
    let image = tables.image()?;
    text.push_str("frontends:\n");
    for (key, value) in &image.frontends {
        line(text, format_args!("  {} {}", frontend(key), target(value)));
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

fn describe_flows(text: &mut String, entries: Vec<(FlowKey, FlowValue)>) {
    let flows: BTreeMap<FlowKey, FlowValue> = entries.into_iter().collect();
    let forward: Vec<_> = flows.iter().filter(|(_, f)| !f.is_reverse()).collect();
    line(
        text,
        format_args!("flows: {} ({} entries)", forward.len(), flows.len()),
    );
    let now = sys::monotonic_ns();
    for (key, flow) in forward.iter().take(FLOWS_SHOWN) {
        line(
            text,
            format_args!(
                "  {} {} -> {} as {} -> {} state {:#04x} silent {} s",
                protocol(key.protocol),
                peer(key.src, key.sport),
                peer(key.dst, key.dport),
                peer(flow.src, flow.sport),
                peer(flow.dst, flow.dport),
                flow.state,
                now.saturating_sub(flow.last_seen) / 1_000_000_000
            ),
        );
    }
}

fn peer(address: Addr, port: u16) -> String {
    SocketAddr::new(address.ip(), u16::from_be(port)).to_string()
}
