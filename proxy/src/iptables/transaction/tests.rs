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
) {
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
    assert_eq!(transaction.to_string(), transaction.as_str());
    assert_eq!(transaction.is_empty(), observed == desired);
    let count = |verbs: &[&str]| {
        let lines = transaction.as_str().lines();
        let said = lines.filter_map(|line| line.split(' ').next());
        said.filter(|verb| verbs.contains(verb)).count()
    };
    assert_eq!(
        transaction.operations,
        count(&["-A", "-D", "-I", "-R", "-X"])
    );
    assert_eq!(transaction.deletions, count(&["-D", "-X"]));
    assert_eq!(transaction.commits as usize, count(&["COMMIT"]));

    let mut kernel = chains(observed);
    execute(&mut kernel, &transaction, Family::V4);
    assert_eq!(kernel, chains(desired));
}

#[test]
fn nothing_pending_is_nothing_to_say() {
    let same: &[(&str, &[&str])] = &[("SEAWAY-A", &["-j ACCEPT"])];
    check(same, same, &expect_test::expect![""]);
}

/// Five rules that are told apart by their ports.
const FIVE: [&str; 5] = [
    "-p tcp -m tcp --dport 1 -j ACCEPT",
    "-p tcp -m tcp --dport 2 -j ACCEPT",
    "-p tcp -m tcp --dport 3 -j ACCEPT",
    "-p tcp -m tcp --dport 4 -j ACCEPT",
    "-p tcp -m tcp --dport 5 -j ACCEPT",
];

#[test]
fn a_chain_that_stays_is_not_declared_and_its_rules_go_one_by_one() {
    let [a, b, c, d, e] = FIVE;
    check(
        &[
            ("SEAWAY-A", &[a, b, c, d, e]),
            ("SEAWAY-B", &[a, b, c, d, e]),
            ("SEAWAY-C", &[a, b, c]),
        ],
        &[
            ("SEAWAY-A", &[a, "-j SEAWAY-D", c, d]),
            ("SEAWAY-B", &["-j RETURN", a, b, c, d, e, "-j RETURN"]),
            ("SEAWAY-C", &["-j RETURN", c]),
            ("SEAWAY-D", &[]),
        ],
        &expect_test::expect![[r"
            *nat
            :SEAWAY-C - [0:0]
            :SEAWAY-D - [0:0]
            -D SEAWAY-A 5
            -R SEAWAY-A 2 -j SEAWAY-D
            -A SEAWAY-B -j RETURN
            -I SEAWAY-B 1 -j RETURN
            -A SEAWAY-C -j RETURN
            -A SEAWAY-C -p tcp -m tcp --dport 3 -j ACCEPT
            COMMIT
        "]],
    );
}

#[test]
fn each_table_has_an_input_of_its_own() {
    let in_filter = ChainId::filter(&ChainName::new("SEAWAY-F"));
    let in_nat = chain("SEAWAY-N");
    let mut delta = Delta::new();
    delta.set_desired(in_filter.clone(), rules(&["-j DROP"]));
    delta.set_desired(in_nat, rules(&[]));
    let transaction = Transaction::new(Family::V4, &delta);
    assert_eq!(transaction.commits, 2);
    let filter = "*filter\n:SEAWAY-F - [0:0]\n-A SEAWAY-F -j DROP\nCOMMIT\n";
    let nat = "*nat\n:SEAWAY-N - [0:0]\nCOMMIT\n";
    let inputs: Vec<_> = transaction.inputs().collect();
    assert_eq!(inputs, [(Table::Filter, filter), (Table::Nat, nat)]);
    assert_eq!(transaction.as_str(), [filter, nat].concat());

    delta.remove_desired(&in_filter);
    let transaction = Transaction::new(Family::V4, &delta);
    let inputs: Vec<_> = transaction.inputs().collect();
    assert_eq!(inputs, [(Table::Nat, transaction.as_str())]);
    assert_eq!(Transaction::default().inputs().count(), 0);
}

#[test]
fn a_deleted_chain_goes_behind_the_last_reference_to_it() {
    check(
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
            :SEAWAY-B - [0:0]
            :SEAWAY-C - [0:0]
            -D SEAWAY-A 1
            -X SEAWAY-B
            -X SEAWAY-C
            COMMIT
        "]],
    );
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
