use super::*;

#[test]
fn differences_are_named() {
    let saved = |text: &str| format!("*nat\n{text}");
    let chains = |text: &str| parse::saved(&saved(text), Family::V4);
    let image = chains(":SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT\n-A OUTPUT -j SEAWAY-A");
    let check = |actual: &str, expected: Option<&str>| {
        let found = difference(&image, &saved(actual), Family::V4, &Table::ALL);
        assert_eq!(found.as_deref(), expected);
    };
    check(
        "-A OUTPUT -j ACCEPT\n-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT",
        None,
    );
    check(
        ":SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT",
        Some("chain OUTPUT of table nat has lost its jump to our chains"),
    );
    check(
        "-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j DROP",
        Some("chain SEAWAY-A of table nat was changed"),
    );
    check(
        "",
        Some("chain OUTPUT of table nat has lost its jump to our chains, and 1 other chains"),
    );
    check(
        "-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT\n:SEAWAY-B - [0:0]",
        Some("chain SEAWAY-B of table nat was added"),
    );
    // A chain of somebody's own that uses ours is nothing to repair.
    check(
        "-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT\n-A MINE -j SEAWAY-A",
        None,
    );
}

#[test]
fn tables_that_are_not_asked_for_are_not_looked_at() {
    let nat = "*nat\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT\n";
    let filter = "*filter\n:SEAWAY-B - [0:0]\n";
    let image = parse::saved(&format!("{nat}{filter}"), Family::V4);
    let found = |text: &str, tables: &[Table]| difference(&image, text, Family::V4, tables);
    assert_eq!(found(nat, &[Table::Nat]), None);
    assert_eq!(found(filter, &[Table::Filter]), None);
    let gone = Some("chain SEAWAY-B of table filter is gone".to_owned());
    assert_eq!(found(nat, &Table::ALL), gone);
    // What is in the other variant besides is for the removal of leftovers.
    let both = format!("{nat}*filter\n:SEAWAY-C - [0:0]\n");
    assert_eq!(found(&both, &[Table::Nat]), None);
}

#[test]
fn a_rule_in_other_words_is_the_same_rule() {
    let image = parse::saved(
        "*nat\n-A SEAWAY-A -m comment --comment a -j RETURN\n",
        Family::V4,
    );
    let quoted = "*nat\n-A SEAWAY-A -m comment --comment \"a\" -j RETURN\n";
    assert_eq!(difference(&image, quoted, Family::V4, &Table::ALL), None);
    let twice = "*nat\n-A SEAWAY-A -j RETURN\n-A SEAWAY-A -j RETURN\n";
    let changed = "chain SEAWAY-A of table nat was changed";
    let found = difference(&image, twice, Family::V4, &Table::ALL);
    assert_eq!(found.as_deref(), Some(changed));
}
