//! An iptables in memory: takes what `iptables-restore --noflush` takes and refuses what it refuses.
//!
//! For tests that need a kernel and have none. It checks references as the real one does (jumps to chains that are
//! not there, deletion of a chain in use, loops, targets in the wrong table or hook) and a table that is refused is
//! left as it was. `tests/iptables` holds it against both variants of the real program with generated transactions.

use std::collections::{BTreeMap, BTreeSet};

use seaway_model::Family;

use super::parse;
use super::plan::Chains;
use super::rule::{ChainId, ChainName, Rule, Rules, Table, Target};

#[cfg(test)]
mod tests;

/// The tables of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fake {
    family: Family,
    tables: BTreeMap<Table, Content>,
}

type Content = BTreeMap<ChainName, Vec<Rule>>;

/// What the program would say no to, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Refused {
    /// Counted from 1.
    pub line: usize,
    pub why: Refusal,
}

/// Why a line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("not understood")]
    NotUnderstood,
    #[error("no such table")]
    NoTable,
    #[error("chain {0} does not exist")]
    NoChain(ChainName),
    #[error("neither a target nor a chain: {0}")]
    NoTarget(ChainName),
    #[error("no such rule")]
    NoRule,
    #[error("chain {0} has no place {1}")]
    NoNumber(ChainName, usize),
    #[error("chain {0} is not empty")]
    NotEmpty(ChainName),
    #[error("chain {0} is still jumped to")]
    InUse(ChainName),
    #[error("chain {0} is built in")]
    BuiltIn(ChainName),
    #[error("chain {0} leads back to itself")]
    Loop(ChainName),
    #[error("the target of a rule in {0} is not allowed in this table")]
    WrongTable(ChainName),
    #[error("the target of a rule in {0} is not allowed where the chain is reached from")]
    WrongHook(ChainName),
    #[error("COMMIT is missing")]
    NoCommit,
}

impl Fake {
    /// Empty tables: built-in chains without rules.
    pub fn new(family: Family) -> Self {
        let table = |table| {
            let chains = built_in(table).iter().map(|name| ChainName::new(*name));
            (table, chains.map(|name| (name, Vec::new())).collect())
        };
        Self {
            family,
            tables: Table::ALL.into_iter().map(table).collect(),
        }
    }

    /// Tables that hold these chains already.
    pub fn holding(family: Family, chains: &Chains) -> Self {
        let mut fake = Self::new(family);
        for (id, rules) in chains {
            let table = fake.tables.entry(id.table).or_default();
            table.insert(id.name.clone(), rules.to_vec());
        }
        fake
    }

    /// What [`parse::saved`] finds in the output of `iptables-save`: our chains, and the rules of others that lead
    /// into them.
    pub fn chains(&self) -> Chains {
        let mut chains = Chains::new();
        for (table, content) in &self.tables {
            for (name, rules) in content {
                let rules: Rules = if name.is_ours() {
                    rules.as_slice().into()
                } else {
                    rules.iter().filter(|r| leads_to_ours(r)).cloned().collect()
                };
                if name.is_ours() || !rules.is_empty() {
                    let name = name.clone();
                    let id = ChainId {
                        table: *table,
                        name,
                    };
                    chains.insert(id, rules);
                }
            }
        }
        chains
    }

    /// The rules of a chain, if it exists.
    pub fn rules(&self, id: &ChainId) -> Option<&[Rule]> {
        let rules = self.tables.get(&id.table)?.get(&id.name)?;
        Some(rules)
    }

    /// `iptables-restore --noflush`: each table is taken whole or not at all, in order, up to the first that is
    /// refused.
    pub fn restore(&mut self, text: &str) -> Result<(), Refused> {
        let mut open: Option<(Table, Content)> = None;
        let mut last = 0;
        for (index, line) in text.lines().enumerate() {
            last = index + 1;
            let refuse = |why| Refused { line: last, why };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match (open.as_mut(), line) {
                (None, _) => {
                    let name = line.strip_prefix('*').ok_or(Refusal::NotUnderstood);
                    let name = name.map_err(refuse)?;
                    let table = Table::ALL.into_iter().find(|t| t.as_str() == name);
                    let table = table.ok_or(Refusal::NoTable).map_err(refuse)?;
                    let content = self.tables.get(&table).cloned().unwrap_or_default();
                    open = Some((table, content));
                }
                (Some((table, content)), "COMMIT") => {
                    commit(*table, content).map_err(refuse)?;
                    let content = std::mem::take(content);
                    self.tables.insert(*table, content);
                    open = None;
                }
                (Some((table, content)), _) => {
                    execute(*table, content, line, self.family).map_err(refuse)?;
                }
            }
        }
        match open {
            None => Ok(()),
            Some(_) => Err(Refused {
                line: last,
                why: Refusal::NoCommit,
            }),
        }
    }
}

/// One line inside of a table.
fn execute(table: Table, content: &mut Content, line: &str, family: Family) -> Result<(), Refusal> {
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared.split(' ').next().unwrap_or_default();
        // A chain of the kernel's own is given a policy and keeps its rules.
        if !is_built_in(table, name) {
            content.insert(ChainName::new(name), Vec::new());
        }
        return Ok(());
    }
    let mut words = line.splitn(3, ' ');
    let (Some(verb), Some(name)) = (words.next(), words.next()) else {
        return Err(Refusal::NotUnderstood);
    };
    let name = ChainName::new(name);
    let (number, spec) = numbered(words.next());
    let rule = spec.map(|spec| parse::rule(spec, family));
    if let Some(Target::Jump(to)) = rule.as_ref().map(|rule| &rule.target)
        && !content.contains_key(to)
    {
        return Err(Refusal::NoTarget(to.clone()));
    }
    let missing = || Refusal::NoChain(name.clone());
    // Numbers count from 1.
    let place = |rules: &[Rule], number: usize, room: usize| match number.checked_sub(1) {
        Some(index) if index < rules.len() + room => Ok(index),
        _ => Err(Refusal::NoNumber(name.clone(), number)),
    };
    match (verb, number, rule) {
        ("-A", None, Some(rule)) => content.get_mut(&name).ok_or_else(missing)?.push(rule),
        ("-I", number, Some(rule)) => {
            let rules = content.get_mut(&name).ok_or_else(missing)?;
            // One behind the last is a place, too.
            let index = place(rules, number.unwrap_or(1), 1)?;
            rules.insert(index, rule);
        }
        ("-R", Some(number), Some(rule)) => {
            let rules = content.get_mut(&name).ok_or_else(missing)?;
            let index = place(rules, number, 0)?;
            rules[index] = rule;
        }
        ("-D", Some(number), None) => {
            let rules = content.get_mut(&name).ok_or_else(missing)?;
            rules.remove(place(rules, number, 0)?);
        }
        ("-D", None, Some(rule)) => {
            let rules = content.get_mut(&name).ok_or_else(missing)?;
            let index = rules.iter().position(|r| *r == rule);
            rules.remove(index.ok_or(Refusal::NoRule)?);
        }
        ("-F", None, None) => content.get_mut(&name).ok_or_else(missing)?.clear(),
        ("-N", None, None) if !content.contains_key(&name) => {
            content.insert(name, Vec::new());
        }
        ("-X", None, None) => delete(table, content, &name)?,
        _ => return Err(Refusal::NotUnderstood),
    }
    Ok(())
}

/// The number of a rule, if one is given, and the rule, if any.
fn numbered(rest: Option<&str>) -> (Option<usize>, Option<&str>) {
    let Some(rest) = rest else {
        return (None, None);
    };
    let (first, spec) = match rest.split_once(' ') {
        Some((first, spec)) => (first, Some(spec)),
        None => (rest, None),
    };
    match first.parse() {
        Ok(number) => (Some(number), spec),
        Err(_) => (None, Some(rest)),
    }
}

fn delete(table: Table, content: &mut Content, name: &ChainName) -> Result<(), Refusal> {
    if is_built_in(table, name.as_str()) {
        return Err(Refusal::BuiltIn(name.clone()));
    }
    let rules = content.get(name);
    if !rules.ok_or(Refusal::NoChain(name.clone()))?.is_empty() {
        return Err(Refusal::NotEmpty(name.clone()));
    }
    if content.values().flatten().any(|rule| jumps_to(rule, name)) {
        return Err(Refusal::InUse(name.clone()));
    }
    content.remove(name);
    Ok(())
}

/// What the kernel checks when it is given the table.
fn commit(table: Table, content: &Content) -> Result<(), Refusal> {
    for (name, rules) in content {
        if let Some(rule) = rules.iter().find(|rule| !allowed_in(table, &rule.target)) {
            tracing::trace!(?rule, "not allowed in this table");
            return Err(Refusal::WrongTable(name.clone()));
        }
    }
    for hook in built_in(table) {
        let mut open = Vec::new();
        let mut done = BTreeSet::new();
        visit(content, &ChainName::new(*hook), hook, &mut open, &mut done)?;
    }
    Ok(())
}

/// Everything that is reached from a hook: no loop, and only targets that the hook allows.
fn visit(
    content: &Content,
    name: &ChainName,
    hook: &str,
    open: &mut Vec<ChainName>,
    done: &mut BTreeSet<ChainName>,
) -> Result<(), Refusal> {
    if open.contains(name) {
        return Err(Refusal::Loop(name.clone()));
    }
    if !done.insert(name.clone()) {
        return Ok(());
    }
    open.push(name.clone());
    for rule in content.get(name).into_iter().flatten() {
        if !allowed_from(hook, &rule.target) {
            return Err(Refusal::WrongHook(name.clone()));
        }
        if let Target::Jump(to) = &rule.target {
            visit(content, to, hook, open, done)?;
        }
    }
    open.pop();
    Ok(())
}

fn allowed_in(table: Table, target: &Target) -> bool {
    match target {
        Target::Dnat(_) | Target::Masquerade { .. } => table == Table::Nat,
        // The program's own rule: nat is not for filtering.
        Target::Drop => table == Table::Filter,
        Target::Reject | Target::RejectWithReset => table == Table::Filter,
        _ => true,
    }
}

fn allowed_from(hook: &str, target: &Target) -> bool {
    match target {
        Target::Dnat(_) => matches!(hook, "PREROUTING" | "OUTPUT"),
        Target::Masquerade { .. } => hook == "POSTROUTING",
        _ => true,
    }
}

fn built_in(table: Table) -> &'static [&'static str] {
    match table {
        Table::Filter => &["INPUT", "FORWARD", "OUTPUT"],
        Table::Nat => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
    }
}

fn is_built_in(table: Table, name: &str) -> bool {
    built_in(table).contains(&name)
}

fn jumps_to(rule: &Rule, name: &ChainName) -> bool {
    matches!(&rule.target, Target::Jump(to) if to == name)
}

fn leads_to_ours(rule: &Rule) -> bool {
    matches!(&rule.target, Target::Jump(to) if to.is_ours())
        || rule.opaque_text().is_some_and(parse::leads_to_ours)
}
