//! A plan of iptables mode as a difference that people can read: chain by chain, what goes and what comes.

use std::collections::BTreeMap;
use std::fmt::Write;

use similar::{ChangeTag, TextDiff};

/// Family, table and chain, in the order of the output.
type Chain<'a> = (u8, &'a str, &'a str);

/// What `plan`, as `iptables-restore` gets it, changes in what `dump` shows. Pure.
pub(super) fn plan_diff(dump: &str, plan: &str) -> String {
    let actual = actual_rules(dump);
    let mut text = String::new();
    for (chain, wanted) in planned_rules(plan, &actual) {
        let (family, table, name) = chain;
        let before = actual.get(&chain).map(Vec::as_slice).unwrap_or_default();
        let diff = TextDiff::from_slices(before, &wanted);
        let changes: Vec<_> = diff
            .iter_all_changes()
            .filter(|change| change.tag() != ChangeTag::Equal)
            .collect();
        if changes.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        _ = writeln!(text, "ipv{family} {table} {name}");
        for change in changes {
            _ = writeln!(text, "  {} {}", change.tag(), change.value());
        }
    }
    if text.is_empty() {
        text.push_str("nothing to do\n");
    }
    text
}

/// Lines such as `nat SEAWAY-SERVICES -p tcp ...` under a heading with the name of the tool.
fn actual_rules(dump: &str) -> BTreeMap<Chain<'_>, Vec<&str>> {
    let mut family = 4;
    let mut rules = BTreeMap::<_, Vec<_>>::new();
    for line in dump.lines() {
        if let Some(heading) = line.strip_prefix("# ") {
            family = if heading.starts_with("ip6") { 6 } else { 4 };
            continue;
        }
        let mut words = line.splitn(3, ' ');
        if let (Some(table), Some(chain), Some(rule)) = (words.next(), words.next(), words.next()) {
            rules.entry((family, table, chain)).or_default().push(rule);
        }
    }
    rules
}

/// The rules that each chain has after the plan, of the chains that it touches.
fn planned_rules<'a>(
    plan: &'a str,
    actual: &BTreeMap<Chain<'a>, Vec<&'a str>>,
) -> BTreeMap<Chain<'a>, Vec<&'a str>> {
    let (mut family, mut table) = (4, "");
    let mut planned = BTreeMap::<Chain<'_>, Vec<&str>>::new();
    for line in plan.lines() {
        if let Some(heading) = line.strip_prefix("# ") {
            family = if heading.starts_with("ipv6") { 6 } else { 4 };
        } else if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(declared) = line.strip_prefix(':') {
            // Emptied, to be filled by what follows.
            let name = declared.split(' ').next().unwrap_or_default();
            planned.insert((family, table, name), Vec::new());
        } else if let Some((verb, rest)) = line.split_once(' ') {
            let (name, rule) = rest.split_once(' ').unwrap_or((rest, ""));
            let chain = (family, table, name);
            let now = || actual.get(&chain).cloned().unwrap_or_default();
            let rules = planned.entry(chain).or_insert_with(now);
            let (index, rule) = numbered(rule);
            match (verb, index) {
                ("-A", _) => rules.push(rule),
                ("-I", index) => rules.insert(index.unwrap_or(0).min(rules.len()), rule),
                ("-R", Some(index)) if index < rules.len() => rules[index] = rule,
                ("-D", index) => {
                    let equal = || rules.iter().position(|other| *other == rule);
                    let at = index.or_else(equal).filter(|at| *at < rules.len());
                    at.map(|at| rules.remove(at));
                }
                _ => {}
            }
        }
    }
    planned
}

/// Where a rule goes, if its number is said, and the rule. Numbers count from 1.
fn numbered(rest: &str) -> (Option<usize>, &str) {
    let (first, rule) = rest.split_once(' ').unwrap_or((rest, ""));
    match first.parse::<usize>() {
        Ok(number) => (number.checked_sub(1), rule),
        Err(_) => (None, rest),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const DUMP: &str = "# iptables-nft: 3 chains, 4 rules, as found
nat PREROUTING -j SEAWAY-SERVICES
nat SEAWAY-A -j one
nat SEAWAY-A -j two
nat SEAWAY-OLD -j three
# ip6tables-nft: 1 chains, 1 rules, as found
nat SEAWAY-A -j one
";

    #[test]
    fn rules_that_go_and_rules_that_come() {
        let plan = "# ipv4
*nat
:SEAWAY-A - [0:0]
:SEAWAY-NEW - [0:0]
:SEAWAY-OLD - [0:0]
-D PREROUTING -j SEAWAY-SERVICES
-A SEAWAY-A -j one
-A SEAWAY-A -j 2
-A SEAWAY-NEW -j four
-I PREROUTING -m comment -j SEAWAY-SERVICES
-X SEAWAY-OLD
COMMIT
# ipv6: nothing to do
";
        expect![[r#"
            ipv4 nat PREROUTING
              - -j SEAWAY-SERVICES
              + -m comment -j SEAWAY-SERVICES
            ipv4 nat SEAWAY-A
              - -j two
              + -j 2
            ipv4 nat SEAWAY-NEW
              + -j four
            ipv4 nat SEAWAY-OLD
              - -j three
        "#]]
        .assert_eq(&plan_diff(DUMP, plan));
    }

    #[test]
    fn rules_that_are_told_by_number() {
        let plan = "# ipv4
*nat
:SEAWAY-OLD - [0:0]
-D SEAWAY-A 2
-R SEAWAY-A 1 -j 1
-I SEAWAY-A 2 -j 2
-A SEAWAY-A -j 3
-I SEAWAY-A 1 -j 0
-X SEAWAY-OLD
COMMIT
# ipv6
*nat
-D SEAWAY-A 2
-R SEAWAY-A 2 -j 1
COMMIT
";
        expect![[r#"
            ipv4 nat SEAWAY-A
              - -j one
              - -j two
              + -j 0
              + -j 1
              + -j 2
              + -j 3
            ipv4 nat SEAWAY-OLD
              - -j three
        "#]]
        .assert_eq(&plan_diff(DUMP, plan));
    }

    #[test]
    fn a_chain_that_is_written_as_it_is_makes_no_difference() {
        let plan =
            "# ipv4: nothing to do\n# ipv6\n*nat\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j one\nCOMMIT\n";
        assert_eq!(plan_diff(DUMP, plan), "nothing to do\n");
    }
}
