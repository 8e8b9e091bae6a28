//! The maps of eBPF mode, as a kernel would have them that followed every change, and what the programs decide by them.

use std::collections::BTreeSet;

use seaway_model::{Change, Desired, Family, NodeContext, ObjectKey, Protocol, outcomes};
use seaway_proxy::ebpf::walk::{self, seen};

use crate::rules::packets;

/// Of one node.
#[derive(Debug)]
pub struct Maps {
    node: NodeContext,
    maps: walk::Maps,
}

impl Maps {
    /// Of a node that nobody has touched yet.
    pub fn new(node: NodeContext) -> Self {
        // As this mode serves its own sockets.
        let loopback_node_ports = node.node_port_addresses.is_none();
        let node = NodeContext {
            loopback_node_ports,
            ..node
        };
        Self {
            maps: walk::Maps::new(node.clone()),
            node,
        }
    }

    /// Writes what has changed, and sends packets.
    ///
    /// # Panics
    ///
    /// When it ends elsewhere than a full sync, or when a packet meets something else than the specification says.
    pub fn follow(&mut self, desired: &Desired, touched: &BTreeSet<ObjectKey>) {
        self.maps
            .follow(desired, &Change::Services(touched.clone()));
        let left_out = self.maps.follow(desired, &Change::Full);
        assert_eq!(left_out, 0, "steps were left out");
        for family in [Family::V4, Family::V6] {
            let packets = packets(desired, family).into_iter();
            // SCTP goes by rules, in this mode as well.
            for packet in packets.filter(|packet| packet.protocol != Protocol::Sctp) {
                let met = seen(&packet, self.maps.outcomes(&packet));
                let expected = seen(&packet, outcomes(desired, &packet, &self.node));
                assert_eq!(met, expected, "{packet:?}");
            }
        }
    }
}
