//! What makes the log durable.

mod memory;
mod redb;

use std::sync::Arc;

pub(crate) use memory::Memory;
pub(crate) use redb::Redb;

use crate::error::StoreError;
use crate::record::{Event, Record, Revision};

/// Durable storage under the log. Only the committer calls it.
pub(crate) trait Engine: Send {
    /// Writes the events, in order, all or none; returns when they survive a power failure.
    fn append(&mut self, events: &[Arc<Event>]) -> Result<(), StoreError>;

    /// Forgets the events up to and including `revision`.
    fn compact(&mut self, revision: Revision) -> Result<(), StoreError>;
}

/// What an engine found when it was opened.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) records: Vec<(Arc<str>, Arc<Record>)>,
    /// Oldest first.
    pub(crate) events: Vec<Event>,
}
