//! What `iptables-save` prints, back to rules.

use std::fmt::Write;

use seaway_model::Family;
use seaway_proxy::iptables::plan::Chains;
use seaway_proxy::iptables::rule::{ChainId, Table};
use seaway_proxy::iptables::{parse, render};

/// Any text is read, and what was read stays the same when it is written and read again.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for family in [Family::V4, Family::V6] {
        let chains = parse::saved(&text, family);
        let written = write(&chains, family);
        assert_eq!(parse::saved(&written, family), chains, "{written}");
    }
}

/// As `iptables-save` would print the chains.
fn write(chains: &Chains, family: Family) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let of_table = || chains.iter().filter(|(id, _)| id.table == table);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "*{}", table.as_str());
        for (ChainId { name, .. }, _) in of_table() {
            let _ = writeln!(text, ":{name} - [0:0]");
        }
        for (ChainId { name, .. }, rules) in of_table() {
            for rule in rules.iter() {
                let _ = writeln!(text, "-A {name} {}", render::rule(rule, family));
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}
