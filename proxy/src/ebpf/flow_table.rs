//! The flow table as user space writes it: what comes and goes is counted, and no packet goes on by what was there before.

use std::ops::Deref;
use std::path::Path;

use seaway_ebpf_abi::{FlowKey, FlowValue, Verdict, maps};

use super::error::EbpfError;
use super::sys;
use super::table::Table;
use super::tallies::OwnCounters;

/// The flow table. It is read as any other one; whoever writes has to go through here.
#[derive(Debug)]
pub(super) struct FlowTable {
    table: Table<FlowKey, FlowValue>,
    epoch: Table<u32, u32>,
    counters: OwnCounters,
}

impl Deref for FlowTable {
    type Target = Table<FlowKey, FlowValue>;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

impl FlowTable {
    /// Opens what is pinned in `dir`; `None` if not all of it is there.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, EbpfError> {
        let table = Table::open(dir, maps::FLOWS)?;
        let epoch = Table::open(dir, maps::EPOCH)?;
        let counters = OwnCounters::open(dir)?;
        let (Some(table), Some(epoch), Some(counters)) = (table, epoch, counters) else {
            return Ok(None);
        };
        Ok(Some(Self {
            table,
            epoch,
            counters,
        }))
    }

    /// Has the programs look up anew what they found before, after a change of what they look up. Epochs are points in time,
    /// so that whoever begins one at the same time on another thread, or in another process, does not bring back an earlier one.
    pub(super) fn new_epoch(&self) -> Result<(), EbpfError> {
        // Finer than a write takes; the same one comes again after minutes, and nothing is kept for longer than a second.
        let now = (sys::monotonic_ns() >> 6) as u32;
        // 0 is no epoch.
        self.epoch.set(&0, &now.max(1))
    }

    /// Writes an entry.
    pub(super) fn set(&self, key: &FlowKey, value: &FlowValue) -> Result<(), EbpfError> {
        let is_new = self.table.get(key)?.is_none();
        self.table.set(key, value)?;
        self.new_epoch()?;
        self.counters.add(Verdict::EntryAdopted, u64::from(is_new))
    }

    /// Writes entries that are not there yet.
    pub(super) fn bring_in(&self, entries: &[(FlowKey, FlowValue)]) -> Result<(), EbpfError> {
        self.table.set_all(entries)?;
        self.counters
            .add(Verdict::EntryAdopted, entries.len() as u64)
    }

    /// Deletes entries; those that are not there are fine. Returns how many there were.
    pub(super) fn delete_all(&self, keys: &[FlowKey]) -> Result<usize, EbpfError> {
        let deleted = self.table.delete_all(keys)?;
        if deleted > 0 {
            self.new_epoch()?;
            self.counters.add(Verdict::EntryCollected, deleted as u64)?;
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests;
