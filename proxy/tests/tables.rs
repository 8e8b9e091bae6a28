//! The specification by example against the rules of iptables mode, without a kernel.

use seaway_model::testing::{self, scenes::Scene};
use seaway_model::{Change, Outcomes, derive_all};
use seaway_proxy::iptables::plan::{Image, Settings};
use seaway_proxy::iptables::walk::walk;

/// Every line of every table, led through the rules: each outcome, and each backend as likely as any other.
#[test]
fn iptables_rules_do_what_the_tables_say() {
    let mut wrong = Vec::new();
    for scene in testing::scenes::scenes() {
        let chains = rules(&scene).chains;
        for case in &scene.cases {
            let found = walk(&chains, &case.packet, &scene.node).unwrap();
            let share = 1.0 / case.expected.len() as f64;
            let fair = found.values().all(|chance| (chance - share).abs() < 1e-6);
            let found: Outcomes = found.into_keys().collect();
            if found != case.expected || !fair {
                let (name, family, line) = (scene.name, scene.family, case.line);
                wrong.push(format!("{name} {family:?}: {line}: but {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn rules(scene: &Scene) -> Image {
    let (desired, _) = derive_all(&scene.inputs, &scene.settings);
    let node = &scene.node;
    let settings = Settings {
        masquerade_all: node.masquerade_all,
        ..Settings::new(scene.family, &node.detect_local)
            .node_ports_on(node.node_port_addresses.as_deref())
    };
    let mut image = Image::default();
    let plan = image.plan(&desired, &Change::Full, &settings);
    image.learn(plan);
    image
}
