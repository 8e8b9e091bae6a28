//! What a commit closure sees: the published state under the writes of this batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::record::{Event, EventKind, Record, Revision};
use crate::state::State;
use crate::store::read;

type Slot = Option<Arc<Record>>;

/// Writes of the current batch that are not published yet, readable by the transactions that follow in the batch.
#[derive(Default)]
pub(crate) struct Overlay {
    slots: HashMap<Arc<str>, BTreeMap<Arc<str>, Slot>>,
    pub(crate) events: Vec<Arc<Event>>,
    undo: Vec<(Arc<str>, Arc<str>, Option<Slot>)>,
}

impl Overlay {
    fn set(&mut self, event: Event) {
        let slot = (event.kind == EventKind::Put).then(|| event.record.clone());
        let key = event.record.key.clone();
        let before = self
            .slots
            .entry(event.bucket.clone())
            .or_default()
            .insert(key.clone(), slot);
        self.undo.push((event.bucket.clone(), key, before));
        self.events.push(Arc::new(event));
    }

    /// Makes the writes since the last call part of the batch.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes back the writes since the last [`Overlay::keep`].
    pub(crate) fn roll_back(&mut self) {
        self.events.truncate(self.events.len() - self.undo.len());
        for (bucket, key, before) in self.undo.drain(..).rev() {
            let Some(slots) = self.slots.get_mut(&bucket) else {
                continue;
            };
            match before {
                Some(slot) => slots.insert(key, slot),
                None => slots.remove(&key),
            };
        }
    }
}

/// A transaction: reads see all earlier commits and its own writes; either all writes happen or none.
pub struct Txn<'a> {
    state: &'a RwLock<State>,
    overlay: &'a mut Overlay,
    base: Revision,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(state: &'a RwLock<State>, overlay: &'a mut Overlay) -> Self {
        let base = read(state).revision;
        Self {
            state,
            overlay,
            base,
        }
    }

    /// The revision that the next write of this transaction takes.
    pub fn next_revision(&self) -> Revision {
        self.base + self.overlay.events.len() as Revision + 1
    }

    pub fn get(&self, bucket: &str, key: &str) -> Option<Arc<Record>> {
        match self
            .overlay
            .slots
            .get(bucket)
            .and_then(|slots| slots.get(key))
        {
            Some(slot) => slot.clone(),
            None => read(self.state).get(bucket, key).cloned(),
        }
    }

    /// The records whose key starts with `prefix`, in key order.
    pub fn range(&self, bucket: &str, prefix: &str) -> Vec<Arc<Record>> {
        let Some(slots) = self.overlay.slots.get(bucket) else {
            return read(self.state).range(bucket, prefix).cloned().collect();
        };
        let mut found: BTreeMap<Arc<str>, Arc<Record>> = read(self.state)
            .range(bucket, prefix)
            .map(|record| (record.key.clone(), record.clone()))
            .collect();
        for (key, slot) in slots.iter().filter(|(key, _)| key.starts_with(prefix)) {
            match slot {
                Some(record) => found.insert(key.clone(), record.clone()),
                None => found.remove(key),
            };
        }
        found.into_values().collect()
    }

    /// Writes the value under the key, new or not.
    pub fn put(&mut self, bucket: &str, key: &str, value: impl Into<Bytes>) -> Arc<Record> {
        let previous = self.get(bucket, key);
        self.write(EventKind::Put, bucket, key, value.into(), previous)
    }

    /// Removes the key; watchers get `last` with the deletion's revision. A key that is absent stays so, without an event.
    pub fn delete(
        &mut self,
        bucket: &str,
        key: &str,
        last: impl Into<Bytes>,
    ) -> Option<Arc<Record>> {
        let previous = self.get(bucket, key)?;
        Some(self.write(EventKind::Delete, bucket, key, last.into(), Some(previous)))
    }

    fn write(
        &mut self,
        kind: EventKind,
        bucket: &str,
        key: &str,
        value: Bytes,
        previous: Option<Arc<Record>>,
    ) -> Arc<Record> {
        let key = previous
            .as_ref()
            .map_or_else(|| Arc::from(key), |previous| previous.key.clone());
        let record = Record::new(key, self.next_revision(), value);
        let bucket = match self.overlay.slots.get_key_value(bucket) {
            Some((name, _)) => name.clone(),
            None => Arc::from(bucket),
        };
        self.overlay.set(Event {
            kind,
            bucket,
            record: record.clone(),
            previous,
            at_millis: now_millis(),
        });
        record
    }
}

pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
