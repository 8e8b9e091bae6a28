//! A difference as one input of `iptables-restore --noflush`.

use std::fmt;
use std::ops::Range;

use seaway_model::{Delta, Family};

use super::render;
use super::rule::{ChainId, Rule, Rules, Table};
use edits::Step;

mod edits;

#[cfg(test)]
pub(super) mod tests;

/// What the kernel is told; its `Display` is exactly that. Empty when there is nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    text: String,
    /// Where each table that is changed stands in the text.
    tables: Vec<(Table, Range<usize>)>,
    /// Rules written and deleted, and chains deleted.
    pub operations: usize,
    /// Of which deletions, of rules and of chains. Rules that go with all of their chain are not counted.
    pub deletions: usize,
    /// Tables that are changed; the kernel takes each at once.
    pub commits: u32,
}

/// A chain that is wanted and is not as it should be.
struct Update<'a> {
    id: &'a ChainId,
    before: &'a [Rule],
    after: &'a [Rule],
    /// `None`: it is written whole.
    steps: Option<Vec<Step<'a>>>,
}

impl<'a> Update<'a> {
    fn new(id: &'a ChainId, before: Option<&'a Rules>, after: &'a Rules) -> Self {
        let ours = before.filter(|_| id.name.is_ours());
        Self {
            id,
            before: before.map_or(&[], |rules| rules),
            after,
            steps: ours.and_then(|before| edits::steps(before, after)),
        }
    }
}

impl Transaction {
    /// The input that does what is pending.
    ///
    /// Of a chain of ours that stays, only the rules that differ are touched; if most do, it is written whole. A
    /// chain that is declared (`:NAME`) is created, or emptied if it exists; everything that is to be written whole or
    /// deleted is declared first, so every jump finds its target, and chains go (`-X`) when nothing refers to them
    /// any more. Within a table the kernel takes all or nothing.
    pub fn new(family: Family, delta: &Delta<ChainId, Rules>) -> Self {
        let mut transaction = Self::default();
        for table in Table::ALL {
            transaction.table(table, family, delta);
        }
        transaction
    }

    /// Whether the kernel need not be told anything.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The input as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same in parts, in the same order: for each table that is changed, an input that is complete by itself.
    pub fn inputs(&self) -> impl Iterator<Item = (Table, &str)> {
        let tables = self.tables.iter();
        tables.map(|(table, range)| (*table, &self.text[range.clone()]))
    }

    fn table(&mut self, table: Table, family: Family, delta: &Delta<ChainId, Rules>) {
        let updates: Vec<_> = delta
            .pending_updates()
            .filter(|(id, _)| id.table == table)
            .map(|(id, after)| Update::new(id, delta.observed(id), after))
            .collect();
        let deleted: Vec<_> = delta
            .pending_deletions()
            .filter(|(id, _)| id.table == table)
            .collect();
        if updates.is_empty() && deleted.is_empty() {
            return;
        }
        let start = self.text.len();
        self.line(&format!("*{}", table.as_str()));
        let whole = updates.iter().filter(|update| update.steps.is_none());
        let whole = whole.map(|update| update.id);
        for id in whole.chain(deleted.iter().map(|(id, _)| *id)) {
            if id.name.is_ours() {
                self.line(&format!(":{} - [0:0]", id.name));
            }
        }
        let updated = updates.iter().map(|update| (update.id, update.before));
        let deleted_rules = deleted.iter().map(|(id, rules)| (*id, &rules[..]));
        for (id, rules) in updated.chain(deleted_rules) {
            if !id.name.is_ours() {
                for rule in rules {
                    self.rule("-D", id, rule, family);
                    self.deletions += 1;
                }
            }
        }
        for update in updates {
            self.update(update, family);
        }
        for (id, _) in deleted.iter().filter(|(id, _)| id.name.is_ours()) {
            self.line(&format!("-X {}", id.name));
            self.operations += 1;
            self.deletions += 1;
        }
        self.line("COMMIT");
        self.commits += 1;
        self.tables.push((table, start..self.text.len()));
    }

    fn update(&mut self, update: Update, family: Family) {
        let Update { id, after, .. } = update;
        match update.steps {
            Some(steps) => {
                for step in steps {
                    self.step(step, id, family);
                }
            }
            None if id.name.is_ours() => {
                for rule in after {
                    self.rule("-A", id, rule, family);
                }
            }
            None => {
                // Each is put in front of the ones before it: so they end up first, and in order.
                for rule in after.iter().rev() {
                    self.rule("-I", id, rule, family);
                }
            }
        }
    }

    fn step(&mut self, step: Step, id: &ChainId, family: Family) {
        let name = &id.name;
        let text = |rule| render::rule(rule, family);
        let line = match step {
            Step::Replace(number, rule) => format!("-R {name} {number} {}", text(rule)),
            Step::Delete(number) => format!("-D {name} {number}"),
            Step::Insert(number, rule) => format!("-I {name} {number} {}", text(rule)),
            Step::Append(rule) => format!("-A {name} {}", text(rule)),
        };
        self.line(&line);
        self.deletions += usize::from(matches!(step, Step::Delete(_)));
        self.operations += 1;
    }

    fn rule(&mut self, verb: &str, id: &ChainId, rule: &Rule, family: Family) {
        self.line(&format!(
            "{verb} {} {}",
            id.name,
            render::rule(rule, family)
        ));
        self.operations += 1;
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
