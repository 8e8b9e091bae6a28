//! What the programs and the kernel take, give back, and have left after cleanup.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use seaway_kernel::capabilities::IptablesVariant;
use seaway_model::{Change, Desired, Family, derive_all, testing};
use seaway_proxy::dataplane::{ApplyError, Dataplane};

use crate::machine::{Machine, PLACES, in_each_place, program, run, service_with, web};

/// Some clusters of the generator; the seed is fixed, so that a failure can be looked at.
fn clusters(count: usize) -> Vec<Desired> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| {
            let inputs = testing::inputs().new_tree(&mut runner).unwrap().current();
            derive_all(&inputs, &testing::settings()).0
        })
        .collect()
}

#[test]
fn the_kernel_takes_every_rule_and_gives_it_back_as_written() {
    let clusters = clusters(12);
    in_each_place(|machine| {
        let clusters = clusters.clone();
        async move {
            for desired in &clusters {
                machine.with(desired).await;
                // A restart: what is read back is what is wanted, nothing is to be done.
                let mut restarted = machine.dataplane();
                restarted.observe().await.unwrap();
                let plan = restarted.plan(desired, &Change::Full);
                assert_eq!(
                    plan.to_string(),
                    "# ipv4: nothing to do\n# ipv6: nothing to do\n"
                );
            }
        }
    });
}

#[test]
fn cleanup_leaves_exactly_what_was_there_before() {
    const FOREIGN: &str = "*nat
:KUBE-MARK - [0:0]
:SEAWAY-EGRESS - [0:0]
-A PREROUTING -m comment --comment \"not -j SEAWAY-SERVICES\" -j KUBE-MARK
-A KUBE-MARK -j MARK --set-xmark 0x4000/0x4000
-A POSTROUTING -j SEAWAY-EGRESS
-A SEAWAY-EGRESS ! -o lo -j MASQUERADE
COMMIT
*filter
-A FORWARD -i eth0 -j DROP
COMMIT
";
    let clusters = clusters(2);
    in_each_place(|machine| {
        let clusters = clusters.clone();
        async move {
            for family in [Family::V4, Family::V6] {
                machine.restore(family, FOREIGN);
                // Somebody's own, beside our nat rules.
                machine.iptables_of(family, "-t nat -N KUBE-OTHER");
            }
            let before = [Family::V4, Family::V6].map(|family| machine.saved(family));
            for desired in &clusters {
                let mut dataplane = machine.with(desired).await;
                machine.iptables("-t nat -A KUBE-OTHER -j SEAWAY-NODEPORTS");
                // By hand, in a place and a form that we never write.
                machine.iptables("-t nat -A INPUT -s 192.0.2.1 -i eth7 -g SEAWAY-NODEPORTS");
                let removed = dataplane.cleanup().await.unwrap();
                let programs = if machine.is_split() { 4 } else { 2 };
                assert_eq!(removed.len(), programs, "{removed:?}");
                let after = [Family::V4, Family::V6].map(|family| machine.saved(family));
                assert_eq!(after, before);
                assert_eq!(dataplane.cleanup().await.unwrap(), Vec::<String>::new());
            }
        }
    });
}

#[test]
fn rules_in_the_other_variant_are_taken_over() {
    let desired = service_with(&[2, 3]);
    for before in PLACES {
        in_each_place(|machine| {
            let desired = desired.clone();
            async move {
                before.with(&desired).await;
                // The kubelet says which variant this node uses now.
                let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
                machine.restore(Family::V4, hint);
                machine.with(&desired).await;
                assert_eq!(places_of_ours(), machine_places(machine));
            }
        });
    }
}

/// Variants and tables that have rules of ours.
fn places_of_ours() -> Vec<(IptablesVariant, &'static str)> {
    let mut places = Vec::new();
    for variant in [IptablesVariant::NfTables, IptablesVariant::Legacy] {
        let save = format!("{}-save", program(Family::V4, variant));
        for table in ["filter", "nat"] {
            if run(&save, &["-t", table], "").contains("SEAWAY-") {
                places.push((variant, table));
            }
        }
    }
    places
}

fn machine_places(machine: Machine) -> Vec<(IptablesVariant, &'static str)> {
    let mut places = vec![
        (machine.variant_of("filter"), "filter"),
        (machine.variant_of("nat"), "nat"),
    ];
    places.sort_by_key(|(variant, table)| (*variant == IptablesVariant::Legacy, *table));
    places
}

#[test]
fn a_change_of_one_endpoint_touches_one_rule() {
    in_each_place(|machine| async move {
        let mut dataplane = machine.with(&service_with(&[2, 3])).await;
        let before = by_chain(&machine.saved(Family::V4));
        let plan = dataplane.plan(&service_with(&[2, 4]), &web());
        let report = dataplane.apply(plan).await.unwrap();
        assert_eq!((report.operations, report.deletions), (2, 0));
        let after = by_chain(&machine.saved(Family::V4));
        let changed: Vec<_> = after
            .iter()
            .filter(|(chain, rules)| before.get(*chain) != Some(*rules))
            .map(|(chain, _)| chain.clone())
            .collect();
        assert_eq!(changed.len(), 1, "{changed:?}");
        assert!(changed[0].starts_with("SEAWAY-SVC-"), "{changed:?}");
        assert_eq!(before.len(), after.len());
    });
}

fn by_chain(saved: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in saved {
        if let Some(rest) = line.strip_prefix("-A ") {
            let chain = rest.split(' ').next().unwrap_or_default();
            chains
                .entry(chain.to_owned())
                .or_default()
                .push(line.clone());
        }
    }
    chains
}

#[test]
fn a_strangers_edit_is_noticed_and_repaired() {
    in_each_place(|machine| async move {
        let desired = service_with(&[2, 3]);
        let mut dataplane = machine.with(&desired).await;
        let edits = [
            "-t nat -F",
            "-t nat -D OUTPUT 1",
            "-t filter -F SEAWAY-FILTER",
            "-t nat -A SEAWAY-SERVICES -j ACCEPT",
            "-t nat -N SEAWAY-SVC-UNKNOWN",
        ];
        for edit in edits {
            machine.iptables(edit);
            let reason = tokio::time::timeout(Duration::from_secs(10), dataplane.watch())
                .await
                .unwrap_or_else(|_| panic!("not noticed: {edit}"))
                .unwrap();
            assert!(reason.starts_with("ipv4: chain "), "{reason}");
            dataplane.observe().await.unwrap();
            let plan = dataplane.plan(&desired, &Change::Full);
            dataplane.apply(plan).await.unwrap();
            let plan = dataplane.plan(&desired, &Change::Full);
            assert!(plan.to_string().starts_with("# ipv4: nothing"), "{plan}");
        }
        machine.iptables("-t nat -A OUTPUT -p udp -j ACCEPT");
        let quiet = tokio::time::timeout(Duration::from_millis(2500), dataplane.watch()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    });
}

#[test]
fn a_refused_transaction_is_explained_and_changes_nothing() {
    in_each_place(|machine| async move {
        let desired = service_with(&[2, 3]);
        let mut dataplane = machine.with(&desired).await;
        let before = machine.saved(Family::V4);
        machine.iptables("-t nat -A OUTPUT -j SEAWAY-NODEPORTS");
        dataplane.observe().await.unwrap();
        let plan = dataplane.plan(&desired, &Change::Full);
        // What the plan wants to take away is gone by itself.
        machine.iptables("-t nat -D OUTPUT -j SEAWAY-NODEPORTS");
        let Err(ApplyError::Refused { reason, .. }) = dataplane.apply(plan).await else {
            panic!("a rule that does not exist was deleted")
        };
        assert!(reason.contains("that line is: -D OUTPUT "), "{reason}");
        assert_eq!(machine.saved(Family::V4), before);
    });
}

#[test]
fn a_flush_under_a_running_change_is_repaired_by_a_full_sync() {
    in_each_place(|machine| async move {
        let desired = service_with(&[2, 3]);
        let mut dataplane = machine.with(&desired).await;
        let before = machine.saved(Family::V4);
        let plan = dataplane.plan(&Desired::default(), &web());
        machine.iptables("-t nat -F");
        machine.iptables("-t nat -X");
        // Refused: what is left of the dispatch leads to chains that are gone.
        assert!(dataplane.apply(plan).await.is_err());
        dataplane.observe().await.unwrap();
        let plan = dataplane.plan(&desired, &Change::Full);
        dataplane.apply(plan).await.unwrap();
        assert_eq!(sorted(machine.saved(Family::V4)), sorted(before));
    });
}

/// The nft variant lists chains in the order in which they were made.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn dump_and_plan_show_rules_as_text() {
    in_each_place(|machine| async move {
        let desired = service_with(&[2, 3]);
        let mut dataplane = machine.with(&desired).await;
        let dump = dataplane.dump().await.unwrap();
        assert!(dump.contains(", as wanted\n"), "{dump}");
        assert!(dump.contains("10.244.1.2:8080"), "{dump}");
        // In the legacy variant a comment costs too much.
        let comments = machine.variant_of("nat") == IptablesVariant::NfTables;
        let has_comments = dump.contains("--comment \"default/web/tcp\"");
        assert_eq!(has_comments, comments, "{dump}");
        machine.iptables("-t nat -F OUTPUT");
        let dump = dataplane.dump().await.unwrap();
        assert!(dump.contains("not as wanted: chain OUTPUT"), "{dump}");
        let found = machine.dataplane().dump().await.unwrap();
        assert!(found.contains(", as found\n"), "{found}");
    });
}
