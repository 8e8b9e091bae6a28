//! The same in words.

use std::fmt;

use super::{Attached, Held, Loaded, Target};
use crate::health::family_name;

/// Flows shown one by one; beyond that only their number.
const FLOWS_SHOWN: usize = 200;

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pins: {}", self.pins)?;
        match &self.loaded {
            Some(loaded) => write!(f, "{loaded}"),
            None => writeln!(f, "nothing is loaded"),
        }
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell_node(f)?;
        self.tell_pods(f)?;
        writeln!(f, "attached:")?;
        for attached in &self.attached {
            writeln!(f, "  {attached}")?;
        }
        self.tell_services(f)?;
        self.tell_maps(f)?;
        self.tell_flows(f)?;
        writeln!(f, "counters:")?;
        self.counters
            .iter()
            .try_for_each(|(label, count)| writeln!(f, "  {label:<20} {count}"))
    }
}

impl Loaded {
    fn tell_node(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self
            .node_addresses
            .iter()
            .map(|own| match own.node_ports {
                false => format!("{} (no node ports)", own.address),
                true => own.address.to_string(),
            })
            .collect();
        writeln!(f, "node addresses: {}", addresses.join(" "))?;
        for one in &self.masquerade {
            let family = family_name(one.family);
            let (to_pods, to_others) = (one.to_pods, one.to_others);
            writeln!(
                f,
                "{family}: masquerade to pods with {to_pods}, to others with {to_others}"
            )?;
        }
        let [first, last] = self.ports;
        writeln!(
            f,
            "ports {first}-{last}; overlay link {}",
            self.overlay_link
        )
    }

    fn tell_pods(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.past_the_stack {
            "past"
        } else {
            "through"
        };
        writeln!(f, "packets between pods: {way} the stack")?;
        for pod in &self.pods {
            let slow = if pod.past_the_stack {
                ""
            } else {
                ", through the stack"
            };
            writeln!(f, "  {} at link {}{slow}", pod.address, pod.link)?;
        }
        for peer in &self.peers {
            match peer.node {
                Some(node) => writeln!(f, "  {} at node {node}, VNI {}", peer.network, peer.vni)?,
                None => writeln!(f, "  {} elsewhere, through the stack", peer.network)?,
            }
        }
        Ok(())
    }

    fn tell_services(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "frontends:")?;
        for one in &self.frontends {
            let service = one.service.iter().map(|key| format!("{key} "));
            let service: String = service.collect();
            writeln!(f, "  {} {service}{}", one.frontend, one.target)?;
        }
        writeln!(f, "backend sets:")?;
        for (id, set) in &self.backend_sets {
            writeln!(f, "  {id}: {}", set.join(" "))?;
        }
        writeln!(f, "source ranges:")?;
        self.source_ranges
            .iter()
            .try_for_each(|(id, list)| writeln!(f, "  {id}: {}", list.join(" ")))
    }

    fn tell_maps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "maps:")?;
        self.maps.iter().try_for_each(|map| {
            let evicted = match map.evictions {
                Some(count) if count > 0 => format!(", {count} pushed out"),
                _ => String::new(),
            };
            writeln!(
                f,
                "  {:<12} {:>7} of {:>7} entries, {:>6} KiB{evicted}",
                map.name,
                map.entries,
                map.max_entries,
                map.memory_bytes / 1024
            )
        })
    }

    fn tell_flows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "flows: {} ({} entries)",
            self.flows.len(),
            self.flow_entries
        )?;
        for entry in self.flows.iter().take(FLOWS_SHOWN) {
            writeln!(f, "  {entry}")?;
        }
        match self.flows.len() > FLOWS_SHOWN {
            true => writeln!(f, "  and others: see `seaway-proxy flows --list`"),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, to, program, ..
        } = self;
        write!(f, "{name}: {to}, program {program}")?;
        match &self.filter {
            Some(filter) => write!(f, " ({filter})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(id) => write!(f, "cgroup {id}"),
            Self::Link(index) => write!(f, "link {index}"),
            Self::Gone => f.write_str("GONE"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
