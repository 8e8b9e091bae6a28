//! What the maps say, walked as the classifiers and the socket hooks walk them, against the specification.

use proptest::prelude::*;
use seaway_model::oracle::{NodeContext, outcomes};
use seaway_model::testing::{inputs, node_context, packet, settings};
use seaway_model::{Outcome, Outcomes, Protocol, derive_all};

use super::*;
use crate::companion::Share;
use crate::ebpf::walk::{Maps, seen};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_maps_say_what_the_specification_allows(
        inputs in inputs(),
        node in node_context(),
        packets in proptest::collection::vec(packet(), 1..16),
    ) {
        let (desired, _) = derive_all(&inputs, &settings());
        let node = NodeContext {
            loopback_node_ports: node.node_port_addresses.is_none(),
            ..node
        };
        let mut maps = Maps::new(node.clone());
        maps.follow(&desired, &Change::Full);
        let by_netfilter = Share::of(&desired);
        for packet in &packets {
            let left = packet.protocol == Protocol::Sctp
                && outcomes(&by_netfilter, packet, &node) != Outcomes::from([Outcome::Pass]);
            let expected = match left {
                true => Outcomes::from([Outcome::Pass]),
                false => seen(packet, outcomes(&desired, packet, &node)),
            };
            prop_assert_eq!(seen(packet, maps.outcomes(packet)), expected, "{:?}", packet);
        }
    }
}
