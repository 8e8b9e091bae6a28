use super::*;
use crate::iptables::rule::{ChainName, Target};

/// Rules that go by one letter each.
fn rules(letters: &str) -> Vec<Rule> {
    let target = |letter: char| Target::Jump(ChainName::new(letter.to_string()));
    letters.chars().map(|c| Rule::new([], target(c))).collect()
}

/// The steps as text.
fn written(before: &str, after: &str) -> String {
    let after = rules(after);
    let Some(steps) = steps(&rules(before), &after) else {
        return "whole".to_owned();
    };
    let letter = |rule: &Rule| match &rule.target {
        Target::Jump(name) => name.to_string(),
        other => panic!("{other:?}"),
    };
    let lines = steps.into_iter().map(|step| match step {
        Step::Replace(number, rule) => format!("R{number}{}", letter(rule)),
        Step::Delete(number) => format!("D{number}"),
        Step::Insert(number, rule) => format!("I{number}{}", letter(rule)),
        Step::Append(rule) => format!("A{}", letter(rule)),
    });
    lines.collect::<Vec<_>>().join(" ")
}

#[test]
fn only_what_differs_is_touched() {
    for (before, after, steps) in [
        ("abc", "abd", "R3d"),
        ("abc", "dbc", "R1d"),
        ("abc", "abcd", "Ad"),
        ("abc", "dabc", "I1d"),
        ("abc", "adbc", "I2d"),
        ("abc", "ab", "D3"),
        ("abc", "bc", "D1"),
        // From the back to the front, and never at what was just written.
        ("abcd", "abcdxy", "Ax Ay"),
        ("abcd", "xyabcd", "I1x I2y"),
        ("abcd", "xabycd", "I3y I1x"),
        ("abcdef", "acdf", "D5 D2"),
        ("abcdef", "adef", "D3 D2"),
        ("abcdef", "axycdef", "I3y R2x"),
        ("abcdef", "axdef", "D3 R2x"),
        ("abcdef", "abcdxyz", "Az R5x R6y"),
        // The right one of two equal rules.
        ("abab", "aba", "D4"),
        ("abab", "bab", "D1"),
    ] {
        assert_eq!(written(before, after), steps, "{before} -> {after}");
    }
}

#[test]
fn half_of_a_chain_may_change_and_not_more() {
    for (before, after, steps) in [
        ("abcd", "abxy", "R3x R4y"),
        ("abcd", "axyz", "whole"),
        ("abcd", "ab", "D4 D3"),
        ("abcd", "a", "whole"),
        ("ab", "abcd", "Ac Ad"),
        ("ab", "abcde", "whole"),
        ("abcd", "dcba", "whole"),
        ("a", "b", "whole"),
        ("a", "", "whole"),
        ("", "a", "whole"),
    ] {
        assert_eq!(written(before, after), steps, "{before} -> {after}");
    }
}
