use std::collections::BTreeMap;

use seaway_model::Family;

use super::*;
use crate::iptables::parse;
use crate::iptables::plan::Chains;
use crate::iptables::rule::{ChainName, Match, Target};

/// Does to `kernel` what iptables-restore would, and refuses what it would refuse.
pub(crate) fn execute(kernel: &mut Chains, transaction: &Transaction, family: Family) {
    let mut tables: BTreeMap<ChainId, Vec<Rule>> = kernel
        .iter()
        .map(|(id, rules)| (id.clone(), rules.to_vec()))
        .collect();
    let mut table = None;
    for line in transaction.as_str().lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|t| t.as_str() == name);
            continue;
        }
        if line == "COMMIT" {
            check_references(&tables);
            table = None;
            continue;
        }
        let table = table.expect("inside of a table");
        let id = |name: &str| ChainId {
            table,
            name: ChainName::new(name),
        };
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split(' ').next().unwrap();
            assert!(id(name).name.is_ours(), "emptied a foreign chain: {line}");
            tables.insert(id(name), Vec::new());
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let (verb, id) = (words.next().unwrap(), id(words.next().unwrap()));
        let rule = words.next().map(|spec| parse::rule(spec, family));
        match (verb, rule) {
            ("-A", Some(rule)) => tables.get_mut(&id).expect("declared").push(rule),
            ("-I", Some(rule)) => tables.entry(id).or_default().insert(0, rule),
            ("-D", Some(rule)) => {
                let rules = tables.get_mut(&id).expect("chain to delete from");
                let index = rules
                    .iter()
                    .position(|r| *r == rule)
                    .expect("rule to delete");
                rules.remove(index);
            }
            ("-X", None) => assert_eq!(tables.remove(&id), Some(Vec::new()), "{line}"),
            _ => panic!("not understood: {line}"),
        }
    }
    assert_eq!(table, None, "COMMIT is missing");
    *kernel = tables
        .into_iter()
        .filter(|(id, rules)| id.name.is_ours() || !rules.is_empty())
        .map(|(id, rules)| (id, rules.into()))
        .collect();
}

fn check_references(tables: &BTreeMap<ChainId, Vec<Rule>>) {
    for (id, rules) in tables {
        for rule in rules {
            if let Target::Jump(name) = &rule.target {
                let target = ChainId {
                    table: id.table,
                    name: name.clone(),
                };
                assert!(
                    tables.contains_key(&target),
                    "{id:?} jumps to nowhere: {name}"
                );
            }
        }
    }
}

fn chain(name: &str) -> ChainId {
    ChainId::nat(&ChainName::new(name))
}

fn rules(texts: &[&str]) -> Rules {
    let rules = texts.iter().map(|text| parse::rule(text, Family::V4));
    rules.collect()
}

fn check(
    observed: &[(&str, &[&str])],
    desired: &[(&str, &[&str])],
    expected: &expect_test::Expect,
) -> Transaction {
    let chains = |all: &[(&str, &[&str])]| -> Chains {
        all.iter()
            .map(|(name, texts)| (chain(name), rules(texts)))
            .collect()
    };
    let mut delta = Delta::new();
    delta.replace_observed(chains(observed));
    delta.replace_desired(chains(desired));
    let transaction = Transaction::new(Family::V4, &delta);
    expected.assert_eq(transaction.as_str());
    let mut kernel = chains(observed);
    execute(&mut kernel, &transaction, Family::V4);
    assert_eq!(kernel, chains(desired));
    transaction
}

#[test]
fn nothing_pending_is_nothing_to_say() {
    let same: &[(&str, &[&str])] = &[("SEAWAY-A", &["-j ACCEPT"])];
    let transaction = check(same, same, &expect_test::expect![""]);
    assert!(transaction.is_empty());
}

#[test]
fn a_deleted_chain_goes_behind_the_last_reference_to_it() {
    let transaction = check(
        &[
            ("PREROUTING", &["-j SEAWAY-A"]),
            ("SEAWAY-A", &["-j SEAWAY-B", "-j ACCEPT"]),
            ("SEAWAY-B", &["-j SEAWAY-C"]),
            ("SEAWAY-C", &[]),
        ],
        &[
            ("PREROUTING", &["-j SEAWAY-A"]),
            ("SEAWAY-A", &["-j ACCEPT"]),
        ],
        &expect_test::expect![[r"
            *nat
            :SEAWAY-A - [0:0]
            :SEAWAY-B - [0:0]
            :SEAWAY-C - [0:0]
            -A SEAWAY-A -j ACCEPT
            -X SEAWAY-B
            -X SEAWAY-C
            COMMIT
        "]],
    );
    assert_eq!((transaction.operations, transaction.deletions), (3, 2));
}

#[test]
fn jumps_are_put_first_and_only_ours_are_taken_away() {
    check(
        &[
            ("OUTPUT", &["-j SEAWAY-OLD", "-j SEAWAY-OLD"]),
            ("SEAWAY-OLD", &[]),
        ],
        &[
            ("OUTPUT", &["-j SEAWAY-A", "-j SEAWAY-B"]),
            ("SEAWAY-A", &[]),
            ("SEAWAY-B", &[]),
        ],
        &expect_test::expect![[r"
            *nat
            :SEAWAY-A - [0:0]
            :SEAWAY-B - [0:0]
            :SEAWAY-OLD - [0:0]
            -D OUTPUT -j SEAWAY-OLD
            -D OUTPUT -j SEAWAY-OLD
            -I OUTPUT -j SEAWAY-B
            -I OUTPUT -j SEAWAY-A
            -X SEAWAY-OLD
            COMMIT
        "]],
    );
}

#[test]
fn a_rule_in_a_strange_syntax_is_deleted_by_its_own_words() {
    check(
        &[
            (
                "INPUT",
                &["-i eth0 -m comment --comment \"by hand\" -g SEAWAY-A"],
            ),
            ("SEAWAY-A", &["-j LOG --log-prefix \"x \""]),
        ],
        &[],
        &expect_test::expect![[r#"
            *nat
            :SEAWAY-A - [0:0]
            -D INPUT -i eth0 -m comment --comment "by hand" -g SEAWAY-A
            -X SEAWAY-A
            COMMIT
        "#]],
    );
    assert!(matches!(
        parse::rule("-j LOG --log-prefix \"x \"", Family::V4).matches[0],
        Match::Opaque(_)
    ));
}
