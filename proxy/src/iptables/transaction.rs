//! A difference as one input of `iptables-restore --noflush`.

use std::fmt;

use seaway_model::{Delta, Family};

use super::render;
use super::rule::{ChainId, Rule, Rules, Table};

#[cfg(test)]
pub(super) mod tests;

/// What the kernel is told; its `Display` is exactly that. Empty when there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    text: String,
    /// Rules written and chains deleted.
    pub operations: usize,
    /// Of which deletions: of chains, and of our rules in built-in chains.
    pub deletions: usize,
    /// Tables that are changed; the kernel takes each at once.
    pub commits: u32,
}

impl Transaction {
    /// The input that does what is pending.
    ///
    /// A chain that is declared (`:NAME`) is created, or emptied if it exists; everything that is to be written or
    /// deleted is declared first, so every jump finds its target, and chains go (`-X`) when nothing refers to them
    /// any more. Within a table the kernel takes all or nothing.
    pub fn new(family: Family, delta: &Delta<ChainId, Rules>) -> Self {
        let mut transaction = Self {
            text: String::new(),
            operations: 0,
            deletions: 0,
            commits: 0,
        };
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

    /// The input for each table that is changed, by itself: all of them one behind the other are the whole.
    pub fn inputs(&self) -> impl Iterator<Item = (Table, &str)> {
        self.text.split_inclusive("\nCOMMIT\n").filter_map(|input| {
            let name = input.strip_prefix('*')?.lines().next()?;
            let table = Table::ALL.into_iter().find(|t| t.as_str() == name)?;
            Some((table, input))
        })
    }

    fn table(&mut self, table: Table, family: Family, delta: &Delta<ChainId, Rules>) {
        let written: Vec<_> = delta
            .pending_updates()
            .filter(|(id, _)| id.table == table)
            .collect();
        let deleted: Vec<_> = delta
            .pending_deletions()
            .filter(|(id, _)| id.table == table)
            .collect();
        if written.is_empty() && deleted.is_empty() {
            return;
        }
        self.line(&format!("*{}", table.as_str()));
        let touched = || {
            let written = written.iter().map(|(id, _)| *id);
            written.chain(deleted.iter().map(|(id, _)| *id))
        };
        for id in touched().filter(|id| id.name.is_ours()) {
            self.line(&format!(":{} - [0:0]", id.name));
        }
        for id in touched().filter(|id| !id.name.is_ours()) {
            for rule in delta
                .observed(id)
                .into_iter()
                .flat_map(|rules| rules.iter())
            {
                self.rule("-D", id, rule, family);
                self.deletions += 1;
            }
        }
        for (id, rules) in written {
            if id.name.is_ours() {
                for rule in rules.iter() {
                    self.rule("-A", id, rule, family);
                }
            } else {
                // Each is put in front of the ones before it: so they end up first, and in order.
                for rule in rules.iter().rev() {
                    self.rule("-I", id, rule, family);
                }
            }
        }
        for (id, _) in deleted.iter().filter(|(id, _)| id.name.is_ours()) {
            self.line(&format!("-X {}", id.name));
            self.operations += 1;
            self.deletions += 1;
        }
        self.line("COMMIT");
        self.commits += 1;
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
