//! Nat rules of a namespace that redirect what its own programs send.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use seaway_kernel::capabilities::IptablesVariant;
use seaway_kernel::{Command, CommandError, LegacyTables, NetNs, TableSize};
use seaway_model::Family;

use crate::iptables::tool::Tool;
use crate::iptables::watch;

/// The generation of nf_tables before there was any rule.
const EMPTY: u32 = 1;

/// Rules of a sidecar are read in milliseconds; others have to wait for these here.
const PATIENCE: Duration = Duration::from_secs(2);

/// What changes when nat rules come, without reading them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rules {
    /// Of nf_tables, if there ever was a rule.
    generation: Option<u32>,
    /// The legacy tables, of the families that have one.
    legacy: Vec<(Family, TableSize)>,
}

impl Rules {
    /// Those of the calling thread's namespace. Makes no table.
    pub(super) fn here() -> Self {
        let legacy = [
            (Family::V4, "/proc/thread-self/net/ip_tables_names"),
            (Family::V6, "/proc/thread-self/net/ip6_tables_names"),
        ];
        // Without a table of the family the file is empty, or is not there.
        let has_nat = |names: &str| {
            let names = fs::read_to_string(names).unwrap_or_default();
            names.lines().any(|name| name == "nat")
        };
        Self {
            generation: watch::generation().filter(|generation| *generation > EMPTY),
            legacy: legacy
                .into_iter()
                .filter(|(_, names)| has_nat(names))
                .filter_map(|(family, _)| {
                    let tables = LegacyTables::open(family == Family::V6).ok()?;
                    Some((family, tables.size("nat").ok()?))
                })
                .collect(),
        }
    }

    /// The programs that can read them.
    fn tools(&self) -> Vec<Tool> {
        let families = [Family::V4, Family::V6].into_iter();
        let nft = families
            .filter(|_| self.generation.is_some())
            .map(|family| (family, IptablesVariant::NfTables));
        let legacy = self.legacy.iter();
        nft.chain(legacy.map(|(family, _)| (*family, IptablesVariant::Legacy)))
            .map(|(family, variant)| Tool { family, variant })
            .collect()
    }
}

/// Whether rules in a namespace redirect what its own programs send.
pub(super) async fn read(netns: &NetNs, rules: &Rules) -> Result<bool, CommandError> {
    for tool in rules.tools() {
        let program = format!("{}-save", tool.name());
        let command = Command::new(program)
            .args(["-t", "nat"])
            .timeout(PATIENCE)
            .netns(netns);
        if redirects(&command.output().await?.into_text()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `OUTPUT` leads to a `REDIRECT` in what `iptables-save -t nat` prints.
pub(super) fn redirects(saved: &str) -> bool {
    let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in saved.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("-A") {
            continue;
        }
        let Some(chain) = words.next() else { continue };
        while let Some(word) = words.next() {
            if matches!(word, "-j" | "-g")
                && let Some(target) = words.next()
            {
                targets.entry(chain).or_default().insert(target);
            }
        }
    }
    let (mut reached, mut next) = (BTreeSet::new(), vec!["OUTPUT"]);
    while let Some(chain) = next.pop() {
        if chain == "REDIRECT" {
            return true;
        }
        if reached.insert(chain) {
            next.extend(targets.get(chain).into_iter().flatten());
        }
    }
    false
}
