//! The records and their recent history, in memory. Pure: what a commit published is applied here, readers look here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{ReadError, WatchError};
use crate::record::{Event, EventKind, Record, Revision};

/// The records of a bucket at one revision, in key order.
#[derive(Debug)]
pub struct Listing {
    pub revision: Revision,
    pub records: Vec<Arc<Record>>,
}

/// Everything that is published.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) closed: bool,
    ring_limit: usize,
    buckets: HashMap<Arc<str>, Bucket>,
}

/// One kind of thing: its records and the events that made them.
struct Bucket {
    records: BTreeMap<Arc<str>, Arc<Record>>,
    events: VecDeque<Arc<Event>>,
    /// Watches and listings below this revision are refused: at least one of this bucket's events is gone.
    compacted: Revision,
    /// Moves with each event of this bucket and no other: a busy bucket does not wake the watchers of a quiet one.
    changed: watch::Sender<Revision>,
}

impl Bucket {
    fn new(compacted: Revision) -> Self {
        Self {
            records: BTreeMap::new(),
            events: VecDeque::new(),
            compacted,
            changed: watch::Sender::new(0),
        }
    }
}

/// The events that a watcher has not seen.
pub(crate) struct Pending {
    pub(crate) events: Vec<Arc<Event>>,
    /// Every event of the bucket up to here is among `events` or was seen before.
    pub(crate) progress: Revision,
    /// Events of the bucket after the watcher's position, before the cut to `limit` and the prefix.
    pub(crate) behind: usize,
}

impl State {
    pub(crate) fn new(revision: Revision, compacted: Revision, ring_limit: usize) -> Self {
        Self {
            revision,
            compacted,
            ring_limit,
            ..Self::default()
        }
    }

    fn bucket_mut(&mut self, name: &Arc<str>) -> &mut Bucket {
        let compacted = self.compacted;
        self.buckets
            .entry(name.clone())
            .or_insert_with(|| Bucket::new(compacted))
    }

    /// Puts in a record that was read from disk.
    pub(crate) fn load_record(&mut self, bucket: &Arc<str>, record: Arc<Record>) {
        self.bucket_mut(bucket)
            .records
            .insert(record.key.clone(), record);
    }

    /// Puts in an event that was read from disk; its effect is already among the loaded records.
    pub(crate) fn load_event(&mut self, event: Arc<Event>) {
        let limit = self.ring_limit;
        let bucket = self.bucket_mut(&event.bucket);
        push(bucket, event, limit);
    }

    /// Publishes one write.
    pub(crate) fn apply(&mut self, event: Arc<Event>) {
        self.revision = event.revision();
        let limit = self.ring_limit;
        let bucket = self.bucket_mut(&event.bucket);
        match event.kind {
            EventKind::Put => {
                bucket
                    .records
                    .insert(event.record.key.clone(), event.record.clone());
            }
            EventKind::Delete => {
                bucket.records.remove(&event.record.key);
            }
        }
        push(bucket, event, limit);
    }

    /// Wakes the watchers of the named buckets.
    pub(crate) fn notify<'a>(&self, buckets: impl IntoIterator<Item = &'a Arc<str>>) {
        for bucket in buckets
            .into_iter()
            .filter_map(|name| self.buckets.get(name))
        {
            bucket.changed.send_replace(self.revision);
        }
    }

    /// No more writes will come.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for bucket in self.buckets.values() {
            bucket.changed.send_replace(self.revision);
        }
    }

    pub(crate) fn subscribe(&mut self, bucket: &Arc<str>) -> watch::Receiver<Revision> {
        self.bucket_mut(bucket).changed.subscribe()
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Option<&Arc<Record>> {
        self.buckets.get(bucket)?.records.get(key)
    }

    pub(crate) fn range<'a>(
        &'a self,
        bucket: &str,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Record>> {
        let records = self.buckets.get(bucket).map(|bucket| &bucket.records);
        records
            .into_iter()
            .flat_map(move |records| under(records, prefix))
    }

    /// The records under `prefix` now, or as they were at revision `at`.
    pub(crate) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        at: Option<Revision>,
    ) -> Result<Listing, ReadError> {
        let Some(at) = at.filter(|at| *at != self.revision) else {
            return Ok(Listing {
                revision: self.revision,
                records: self.range(bucket, prefix).cloned().collect(),
            });
        };
        if at > self.revision {
            return Err(ReadError::Future {
                asked: at,
                current: self.revision,
            });
        }
        let oldest = self
            .buckets
            .get(bucket)
            .map_or(self.compacted, |bucket| bucket.compacted);
        if at < oldest {
            return Err(ReadError::Compacted { asked: at, oldest });
        }
        let Some(bucket) = self.buckets.get(bucket) else {
            return Ok(Listing {
                revision: at,
                records: Vec::new(),
            });
        };
        // The past is the present with the later events undone, newest first.
        let mut records: BTreeMap<&str, &Arc<Record>> = under(&bucket.records, prefix)
            .map(|record| (&*record.key, record))
            .collect();
        let later = bucket
            .events
            .iter()
            .rev()
            .take_while(|event| event.revision() > at);
        for event in later.filter(|event| event.record.key.starts_with(prefix)) {
            match &event.previous {
                Some(previous) => records.insert(&event.record.key, previous),
                None => records.remove(&*event.record.key),
            };
        }
        Ok(Listing {
            revision: at,
            records: records.into_values().cloned().collect(),
        })
    }

    /// At most `limit` events of the bucket after `from`, oldest first.
    pub(crate) fn events_after(
        &self,
        bucket: &str,
        prefix: &str,
        from: Revision,
        limit: usize,
    ) -> Result<Pending, WatchError> {
        let Some(bucket) = self.buckets.get(bucket) else {
            return Ok(Pending {
                events: Vec::new(),
                progress: self.revision.max(from),
                behind: 0,
            });
        };
        if from < bucket.compacted {
            return Err(WatchError::Compacted {
                asked: from,
                oldest: bucket.compacted,
            });
        }
        let first = bucket
            .events
            .partition_point(|event| event.revision() <= from);
        let behind = bucket.events.len() - first;
        let taken = behind.min(limit);
        let progress = match bucket.events.get((first + taken).wrapping_sub(1)) {
            Some(last) if taken < behind => last.revision(),
            _ => self.revision.max(from),
        };
        let events = bucket.events.range(first..first + taken);
        let events = events
            .filter(|event| event.record.key.starts_with(prefix))
            .cloned()
            .collect();
        Ok(Pending {
            events,
            progress,
            behind,
        })
    }

    /// The newest revision all of whose events, and those before, are older than `cutoff_millis`.
    pub(crate) fn revision_before(&self, cutoff_millis: u64) -> Revision {
        let young = |bucket: &Bucket| {
            let old = bucket
                .events
                .iter()
                .take_while(|event| event.at_millis < cutoff_millis)
                .count();
            bucket.events.get(old).map(|event| event.revision())
        };
        let first_young = self.buckets.values().filter_map(young).min();
        first_young.map_or(self.revision, |revision| revision - 1)
    }

    /// Forgets every event up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        for bucket in self.buckets.values_mut() {
            while bucket
                .events
                .front()
                .is_some_and(|event| event.revision() <= revision)
            {
                bucket.events.pop_front();
            }
            bucket.compacted = bucket.compacted.max(revision);
        }
    }
}

fn push(bucket: &mut Bucket, event: Arc<Event>, limit: usize) {
    bucket.events.push_back(event);
    while bucket.events.len() > limit {
        if let Some(oldest) = bucket.events.pop_front() {
            bucket.compacted = oldest.revision();
        }
    }
}

fn under<'a>(
    records: &'a BTreeMap<Arc<str>, Arc<Record>>,
    prefix: &'a str,
) -> impl Iterator<Item = &'a Arc<Record>> {
    let range = (Bound::Included(prefix), Bound::Unbounded);
    records
        .range::<str, _>(range)
        .map(|(_, record)| record)
        .take_while(move |record| record.key.starts_with(prefix))
}
