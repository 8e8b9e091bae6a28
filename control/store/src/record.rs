//! Records and the events that change them.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// A point in the one history of all writes; 0 is the empty store.
pub type Revision = u64;

/// One version of the value under a key.
pub struct Record {
    pub key: Arc<str>,
    /// Revision of the write that made this version.
    pub revision: Revision,
    pub value: Bytes,
    view: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Record {
    pub(crate) fn new(key: Arc<str>, revision: Revision, value: Bytes) -> Arc<Self> {
        Arc::new(Self {
            key,
            revision,
            value,
            view: OnceLock::new(),
        })
    }

    /// What `parse` makes of the value, computed once and kept with the record, so that a thousand watchers with
    /// selectors parse an object once. Callers agree on one `T`; with another type than the first caller's there is no
    /// view.
    pub fn view<T: Send + Sync + 'static>(&self, parse: impl FnOnce(&[u8]) -> T) -> Option<&T> {
        self.view
            .get_or_init(|| Box::new(parse(&self.value)))
            .downcast_ref()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("value", &String::from_utf8_lossy(&self.value))
            .finish()
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One write, as a watcher sees it.
#[derive(Debug)]
pub struct Event {
    pub kind: EventKind,
    pub bucket: Arc<str>,
    /// The new version; for a delete the last value, as the deleting transaction wrote it.
    pub record: Arc<Record>,
    /// The version that this write replaced; none when the key was new.
    pub previous: Option<Arc<Record>>,
    /// Wall clock of the commit, milliseconds since 1970. Decides compaction and nothing else.
    pub at_millis: u64,
}

impl Event {
    pub fn revision(&self) -> Revision {
        self.record.revision
    }
}
