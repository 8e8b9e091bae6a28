//! The iptables in memory against the real one: the same transactions, the same verdict, the same rules.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use seaway_model::Family;
use seaway_proxy::iptables::fake::Fake;
use seaway_proxy::iptables::parse;

use crate::machine::{Machine, in_each_variant, output, run};

/// Lines of a transaction about few chains, so that they meet: three of ours and the built-in ones.
fn line(table: &'static str) -> BoxedStrategy<String> {
    let own = prop::sample::select(vec!["SEAWAY-A", "SEAWAY-B", "SEAWAY-C"]);
    let hooks = match table {
        "nat" => vec!["PREROUTING", "OUTPUT", "POSTROUTING"],
        _ => vec!["INPUT", "FORWARD", "OUTPUT"],
    };
    let chain = prop_oneof![3 => own.clone(), 1 => prop::sample::select(hooks)];
    let target = prop_oneof![
        6 => own.clone().prop_map(|name| format!("-j {name}")),
        // With a condition: legacy looks for loops only where packets can get to, nft everywhere.
        2 => Just("-p udp -j RETURN".to_owned()),
        2 => Just("-j MARK --set-xmark 0x1/0x1".to_owned()),
        1 => Just("-j SEAWAY-NOBODY".to_owned()),
    ];
    prop_oneof![
        4 => own.clone().prop_map(|name| format!(":{name} - [0:0]")),
        5 => (chain.clone(), target.clone()).prop_map(|(c, t)| format!("-A {c} {t}")),
        2 => (chain.clone(), target.clone()).prop_map(|(c, t)| format!("-I {c} {t}")),
        2 => (chain.clone(), target.clone()).prop_map(|(c, t)| format!("-D {c} {t}")),
        // Mostly there: chains are short here.
        2 => (chain.clone(), number(), target.clone()).prop_map(|(c, n, t)| format!("-I {c} {n} {t}")),
        2 => (chain.clone(), number(), target).prop_map(|(c, n, t)| format!("-R {c} {n} {t}")),
        2 => (chain.clone(), number()).prop_map(|(c, n)| format!("-D {c} {n}")),
        1 => chain.prop_map(|c| format!("-F {c}")),
        2 => own.prop_map(|name| format!("-X {name}")),
    ]
    .boxed()
}

/// Of a rule; none has number 0.
fn number() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..3_usize, 3 => 3..6_usize, 1 => Just(0)]
}

fn transaction() -> impl Strategy<Value = String> {
    let table = |name: &'static str| {
        prop::collection::vec(line(name), 1..8).prop_map(move |mut lines| {
            without_bugs(&mut lines);
            format!("*{name}\n{}\nCOMMIT\n", lines.join("\n"))
        })
    };
    prop_oneof![
        3 => table("nat"),
        1 => table("filter"),
        1 => (table("filter"), table("nat")).prop_map(|(a, b)| a + &b),
    ]
}

/// Leaves out what the nft variant of 1.8.9 does wrong, and ours never ask for: it still counts the rules that a chain
/// had before it was declared by the same transaction, and crashes when it is to replace a rule that was written by
/// it. Legacy does neither.
fn without_bugs(lines: &mut Vec<String>) {
    let mut declared = BTreeSet::new();
    let mut written = BTreeSet::new();
    lines.retain(|line| {
        if let Some(declaration) = line.strip_prefix(':') {
            let name = declaration.split(' ').next();
            declared.extend(name.map(str::to_owned));
            return true;
        }
        let words: Vec<_> = line.split(' ').collect();
        let (verb, chain) = (words[0], words[1]);
        let numbered = words.get(2).is_some_and(|w| w.parse::<usize>().is_ok());
        if numbered && (declared.contains(chain) || verb == "-R" && written.contains(chain)) {
            return false;
        }
        if matches!(verb, "-A" | "-I" | "-R") {
            written.insert(chain.to_owned());
        }
        true
    });
}

/// Seeds are fixed, so that a failure can be looked at.
fn transactions(count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let strategy = transaction();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

#[test]
fn both_take_and_refuse_the_same() {
    let transactions = transactions(400);
    in_each_variant(|machine| {
        let transactions = transactions.clone();
        async move {
            for family in [Family::V4, Family::V6] {
                agree(machine, family, &transactions);
            }
        }
    });
}

/// One after the other, each on what the ones before have left.
fn agree(machine: Machine, family: Family, transactions: &[String]) {
    let mut fake = Fake::new(family);
    let mut taken = 0;
    for text in transactions {
        let before = fake.clone();
        let real = restore(machine, family, text);
        let pretended = fake.restore(text);
        assert_eq!(
            pretended.is_ok(),
            real.is_ok(),
            "{:?} {family:?}: {pretended:?}, but {real:?}\n{text}\nbefore: {:#?}",
            machine.variant,
            before.chains()
        );
        taken += usize::from(real.is_ok());
        let saved = run(&format!("{}-save", machine.name(family)), &[], "");
        assert_eq!(fake.chains(), parse::saved(&saved, family), "{text}");
    }
    // Neither all nor nothing, or the test would say little.
    let most = transactions.len() * 9 / 10;
    assert!((most / 9..most).contains(&taken), "{taken}");
}

/// Every target that is not for every place, in every place, directly and through a chain of our own. (Not generated
/// like the others: of a rule that is gone again before the commit, the variants think differently.)
#[test]
fn targets_are_allowed_in_the_same_places() {
    const PLACES: [(&str, &[&str]); 2] = [
        ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
        ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ];
    const TARGETS: [&str; 4] = [
        "-p tcp -j DNAT --to-destination 10.0.0.1:80",
        "-j MASQUERADE",
        "-j REJECT --reject-with icmp-port-unreachable",
        "-p tcp -j REJECT --reject-with tcp-reset",
    ];
    in_each_variant(|machine| async move {
        for (table, hooks) in PLACES {
            for hook in hooks {
                for target in TARGETS {
                    let through =
                        format!(":SEAWAY-A - [0:0]\n-A SEAWAY-A {target}\n-A {hook} -j SEAWAY-A");
                    for rules in [format!("-A {hook} {target}"), through] {
                        let text = format!("*{table}\n{rules}\nCOMMIT\n");
                        let real = restore(machine, Family::V4, &text);
                        let pretended = Fake::new(Family::V4).restore(&text);
                        assert_eq!(
                            pretended.is_ok(),
                            real.is_ok(),
                            "{:?}: {pretended:?}, but {real:?}\n{text}",
                            machine.variant
                        );
                        machine.iptables(&format!("-t {table} -F"));
                    }
                }
            }
        }
    });
}

fn restore(machine: Machine, family: Family, text: &str) -> Result<(), String> {
    let program = format!("{}-restore", machine.name(family));
    let output = output(&program, &["--noflush", "--wait", "5"], text);
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
