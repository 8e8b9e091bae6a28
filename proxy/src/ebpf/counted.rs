//! Tables that programs fill and that make room by themselves (LRU maps), and what such a table has pushed out.
//!
//! The kernel does not tell when it reuses an entry. But programs count what they add and remove, user space what it
//! collects and brings in, and a listing says how many are left: whatever is missing then was pushed out. Entries come and go
//! during the listing, so that the difference is a lower bound, exact once the table is at rest.

use std::ops::Deref;
use std::path::Path;

use seaway_ebpf_abi::{Plain, Verdict, maps};

use super::census::MapUse;
use super::error::EbpfError;
use super::table::Table;
use super::tallies::OwnCounters;

/// Under which verdicts the entries of a table are counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ledger {
    /// The table.
    pub(super) name: &'static str,
    /// By programs.
    added: Verdict,
    /// By programs, if these remove any.
    removed: Option<Verdict>,
    /// By user space: brought in, and taken out.
    pub(super) adopted: Verdict,
    collected: Verdict,
}

/// The ledger of [`maps::FLOWS`].
pub(super) const FLOWS: Ledger = Ledger {
    name: maps::FLOWS,
    added: Verdict::EntryAdded,
    removed: Some(Verdict::EntryRemoved),
    adopted: Verdict::EntryAdopted,
    collected: Verdict::EntryCollected,
};

/// The ledger of [`maps::AFFINITY`].
pub(super) const AFFINITY: Ledger = Ledger {
    name: maps::AFFINITY,
    added: Verdict::AffinityAdded,
    removed: None,
    adopted: Verdict::AffinityAdopted,
    collected: Verdict::AffinityCollected,
};

/// The ledger of [`maps::SOCKETS_TCP`].
pub(super) const SOCKETS_TCP: Ledger = Ledger {
    name: maps::SOCKETS_TCP,
    added: Verdict::SocketTcpAdded,
    removed: None,
    adopted: Verdict::SocketTcpAdopted,
    collected: Verdict::SocketTcpCollected,
};

/// The ledger of [`maps::SOCKETS_UDP`].
pub(super) const SOCKETS_UDP: Ledger = Ledger {
    name: maps::SOCKETS_UDP,
    added: Verdict::SocketUdpAdded,
    removed: None,
    adopted: Verdict::SocketUdpAdopted,
    collected: Verdict::SocketUdpCollected,
};

/// The ledger of [`maps::STEADY`].
pub(super) const STEADY: Ledger = Ledger {
    name: maps::STEADY,
    added: Verdict::SteadyAdded,
    removed: None,
    adopted: Verdict::SteadyAdopted,
    collected: Verdict::SteadyCollected,
};

/// The ledger of [`maps::DETOURS`].
pub(super) const DETOURS: Ledger = Ledger {
    name: maps::DETOURS,
    added: Verdict::DetourAdded,
    removed: None,
    adopted: Verdict::DetourAdopted,
    collected: Verdict::DetourCollected,
};

impl Ledger {
    /// All of them.
    const ALL: [&'static Self; 6] = [
        &FLOWS,
        &AFFINITY,
        &SOCKETS_TCP,
        &SOCKETS_UDP,
        &STEADY,
        &DETOURS,
    ];

    /// The ledger of the table with that name, if it has one.
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|ledger| ledger.name == name)
    }
}

/// What has been counted of the entries of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turnover {
    added: u64,
    removed: u64,
}

impl Turnover {
    fn read(counters: &OwnCounters, ledger: &Ledger) -> Result<Self, EbpfError> {
        let removed = ledger.removed.map(|verdict| counters.get(verdict));
        Ok(Self {
            added: counters.get(ledger.added)? + counters.get(ledger.adopted)?,
            removed: removed.unwrap_or(Ok(0))? + counters.get(ledger.collected)?,
        })
    }
}

/// What follows from a listing of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// So many were pushed out since the table was made, at least.
    Evicted(u64),
    /// So many have come in from elsewhere, as from another layout: nobody has counted them.
    Unexplained(u64),
}

/// Compares what was counted before and after a listing with what it found.
fn balance(before: Turnover, after: Turnover, listed: u64) -> Balance {
    let most = after.added.saturating_sub(before.removed);
    if listed > most {
        return Balance::Unexplained(listed - most);
    }
    Balance::Evicted(
        before
            .added
            .saturating_sub(after.removed)
            .saturating_sub(listed),
    )
}

/// A table with a ledger. It is read as any other one; whoever writes has to go through here.
#[derive(Debug)]
pub(super) struct Counted<K, V> {
    table: Table<K, V>,
    ledger: &'static Ledger,
    /// None where only what sockets need has stayed: nothing is counted there.
    counters: Option<OwnCounters>,
}

impl<K, V> Deref for Counted<K, V> {
    type Target = Table<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

impl<K: Plain + Default, V: Plain + Default> Counted<K, V> {
    /// Opens what is pinned in `dir`; `None` if there is no such table.
    pub(super) fn open(dir: &Path, ledger: &'static Ledger) -> Result<Option<Self>, EbpfError> {
        let Some(table) = Table::open(dir, ledger.name)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            table,
            ledger,
            counters: OwnCounters::open(dir)?,
        }))
    }

    /// Writes an entry.
    pub(super) fn set(&self, key: &K, value: &V) -> Result<(), EbpfError> {
        if self.table.add(key, value)? {
            return self.count(self.ledger.adopted, 1);
        }
        self.table.set(key, value)
    }

    /// Writes those entries that are not there yet; how many those were. Keys are different ones.
    pub(super) fn bring_in(&self, entries: Vec<(K, V)>) -> Result<usize, EbpfError>
    where
        K: Ord,
    {
        let brought = self.table.fill(entries)?;
        self.count(self.ledger.adopted, brought)?;
        Ok(brought)
    }

    /// Deletes entries; those that are not there are fine. Returns how many there were.
    pub(super) fn delete_all(&self, keys: &[K]) -> Result<usize, EbpfError> {
        let deleted = self.table.delete_all(keys)?;
        self.count(self.ledger.collected, deleted)?;
        Ok(deleted)
    }

    fn count(&self, verdict: Verdict, more: usize) -> Result<(), EbpfError> {
        match &self.counters {
            Some(counters) => counters.add(verdict, more as u64),
            None => Ok(()),
        }
    }

    /// How full it is, and what it has pushed out.
    pub(super) fn usage(&self) -> Result<MapUse, EbpfError> {
        self.usage_by(|| Ok((self.table.count()?, 0)))
    }

    /// The same by the listing of another one, which may delete entries as well: how many there were, and how many of them went.
    pub(super) fn usage_by(
        &self,
        list: impl FnOnce() -> Result<(usize, usize), EbpfError>,
    ) -> Result<MapUse, EbpfError> {
        let turnover = |counters| Turnover::read(counters, self.ledger);
        let before = self.counters.as_ref().map(turnover).transpose()?;
        let (listed, deleted) = list()?;
        let after = self.counters.as_ref().map(turnover).transpose()?;
        let balance = before.zip(after).map(|(before, after)| {
            // What went in this look was listed before.
            let removed = after.removed.saturating_sub(deleted as u64);
            balance(before, Turnover { removed, ..after }, listed as u64)
        });
        Ok(MapUse {
            balance,
            ..self.table.usage(listed.saturating_sub(deleted))
        })
    }
}

#[cfg(test)]
mod tests;
