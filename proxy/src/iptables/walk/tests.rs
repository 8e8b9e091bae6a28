use seaway_model::testing::scenes::scenes;
use seaway_model::{Change, Outcomes, Packet, derive_all};

use super::*;
use crate::iptables::plan::{Image, Settings};

/// The specification by example: what is written there by hand becomes of the packet in our rules.
#[test]
fn packets_fare_as_the_scenes_say() {
    let mut cases = 0;
    let places = Table::ALL;
    for (scene, unknown_ports) in scenes().iter().flat_map(|s| places.map(|table| (s, table))) {
        let (desired, _) = derive_all(&scene.inputs, &scene.settings);
        let settings = Settings {
            masquerade_all: scene.node.masquerade_all,
            unknown_ports,
            ..Settings::new(scene.family, &scene.node.detect_local)
                .node_ports_on(scene.node.node_port_addresses.as_deref())
        };
        let mut image = Image::default();
        let plan = image.plan(&desired, &Change::Full, &settings);
        image.learn(plan);
        // What only sockets can do is done by no rule.
        let by_socket = |packet: &Packet| {
            scene.node.loopback_node_ports && packet.destination.ip().is_loopback()
        };
        for case in scene.cases.iter().filter(|case| !by_socket(&case.packet)) {
            let found = walk(&image.chains, &case.packet, &scene.node).unwrap();
            let found: Outcomes = found.into_keys().collect();
            let place = (&scene.name, scene.family, case.line);
            assert_eq!(found, case.expected, "{place:?}");
            cases += 1;
        }
    }
    assert!(cases >= 600, "{cases}");
}
