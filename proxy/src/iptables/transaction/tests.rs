use seaway_model::Family;

use super::*;
use crate::iptables::fake::Fake;
use crate::iptables::parse;
use crate::iptables::plan::Chains;
use crate::iptables::rule::{ChainName, Match};

/// Does to `kernel` what iptables-restore would, and refuses what it would refuse.
pub(crate) fn execute(kernel: &mut Chains, transaction: &Transaction, family: Family) {
    for line in transaction.as_str().lines() {
        if let Some(name) = line.strip_prefix(':') {
            let name = ChainName::new(name.split(' ').next().unwrap());
            assert!(name.is_ours(), "emptied a foreign chain: {line}");
        }
    }
    let mut fake = Fake::holding(family, kernel);
    if let Err(error) = fake.restore(transaction.as_str()) {
        panic!("{error}\n{transaction}");
    }
    *kernel = fake.chains();
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
