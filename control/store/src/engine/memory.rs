//! No durability at all.

use std::sync::Arc;

use super::Engine;
use crate::error::StoreError;
use crate::record::{Event, Revision};

/// The store's own memory is all there is.
pub(crate) struct Memory;

impl Engine for Memory {
    fn append(&mut self, _: &[Arc<Event>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn compact(&mut self, _: Revision) -> Result<(), StoreError> {
        Ok(())
    }
}
