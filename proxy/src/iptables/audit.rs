//! What somebody else has made of our rules.

use std::collections::BTreeMap;

use seaway_model::Family;

use super::fixed;
use super::parse;
use super::plan::Chains;
use super::render;
use super::rule::{ChainId, ChainName, Rule, Rules, Table};

#[cfg(test)]
mod tests;

/// How much of a chain has been read so far.
#[derive(Default)]
struct Progress {
    rules: usize,
    changed: bool,
}

/// What differs between what we wrote and what `iptables-save` has printed of some tables, in one sentence; `None` if
/// nothing of ours does. Goes through the text line by line: rules of ten thousand Services are never held twice.
pub fn difference(image: &Chains, saved: &str, family: Family, tables: &[Table]) -> Option<String> {
    let mut found: BTreeMap<(Table, &str), Progress> = BTreeMap::new();
    // Of the chain that the last line was about: its lines come one after the other.
    let mut current: Option<((Table, &str), Option<&Rules>)> = None;
    for line in parse::lines(saved, tables) {
        let key = (line.table, line.chain);
        let wanted = match current {
            Some((chain, wanted)) if chain == key => wanted,
            _ => image.get(&line.id()),
        };
        current = Some((key, wanted));
        let progress = found.entry(key).or_default();
        if let Some(spec) = line.rule {
            let expected = wanted.and_then(|rules| rules.get(progress.rules));
            progress.changed |= !expected.is_some_and(|rule| is_written_as(rule, spec, family));
            progress.rules += 1;
        }
    }
    let mut differences = BTreeMap::new();
    let wanted = image.iter();
    for (id, rules) in wanted.filter(|(id, _)| tables.contains(&id.table) && counts(id)) {
        let key = (id.table, id.name.as_str());
        let what = match found.remove(&key) {
            Some(progress) if !progress.changed && progress.rules == rules.len() => continue,
            Some(_) => "was changed",
            None if id.name.is_ours() => "is gone",
            None => "has lost its jump to our chains",
        };
        differences.insert(key, what);
    }
    // A chain of somebody's own that uses ours is nothing to repair.
    let added = found.into_keys().filter(|(table, chain)| {
        let id = ChainId {
            table: *table,
            name: ChainName::new(*chain),
        };
        counts(&id)
    });
    differences.extend(added.map(|key| (key, "was added")));
    let ((table, chain), what) = differences.pop_first()?;
    let first = format!("chain {chain} of table {} {what}", table.as_str());
    Some(match differences.len() {
        0 => first,
        more => format!("{first}, and {more} other chains"),
    })
}

/// Whether it is for us to say what the chain holds.
fn counts(id: &ChainId) -> bool {
    id.name.is_ours() || fixed::is_built_in(id)
}

/// Whether the program prints this rule so. Most are printed in our own words, which is cheap to see.
fn is_written_as(rule: &Rule, spec: &str, family: Family) -> bool {
    render::rule(rule, family) == spec || parse::rule(spec, family) == *rule
}
