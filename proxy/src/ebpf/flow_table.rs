//! The flow table as user space writes it: no packet goes on by what was there before.

use std::ops::Deref;
use std::path::Path;

use seaway_ebpf_abi::{FlowKey, FlowValue, maps};

use super::counted::{self, Counted};
use super::error::EbpfError;
use super::sys;
use super::table::Table;

/// The flow table. It is read as any other one; whoever writes has to go through here.
#[derive(Debug)]
pub(super) struct FlowTable {
    table: Counted<FlowKey, FlowValue>,
    epoch: Table<u32, u32>,
}

impl Deref for FlowTable {
    type Target = Counted<FlowKey, FlowValue>;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

impl FlowTable {
    /// Opens what is pinned in `dir`; `None` if not all of it is there.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, EbpfError> {
        let table = Counted::open(dir, &counted::FLOWS)?;
        let epoch = Table::open(dir, maps::EPOCH)?;
        Ok(table.zip(epoch).map(|(table, epoch)| Self { table, epoch }))
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
        self.table.set(key, value)?;
        self.new_epoch()
    }

    /// Deletes entries; those that are not there are fine. Returns how many there were.
    pub(super) fn delete_all(&self, keys: &[FlowKey]) -> Result<usize, EbpfError> {
        let deleted = self.table.delete_all(keys)?;
        if deleted > 0 {
            self.new_epoch()?;
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests;
