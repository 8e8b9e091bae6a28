//! Following a bucket.

use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use crate::error::WatchError;
use crate::record::{Event, Revision};
use crate::state::State;
use crate::store::read;

/// Events handed out at a time, so that a watcher far behind does not hold a copy of the whole history.
const CHUNK: usize = 512;

/// A position in the history of one bucket. It holds no queue: events are read from the shared history, so a thousand
/// idle watchers cost nothing when something happens elsewhere.
pub struct Watcher {
    state: Arc<RwLock<State>>,
    bucket: Arc<str>,
    prefix: String,
    position: Revision,
    changed: watch::Receiver<Revision>,
    lag_limit: usize,
    caught_up: bool,
}

impl Watcher {
    pub(crate) fn new(
        state: Arc<RwLock<State>>,
        bucket: Arc<str>,
        prefix: &str,
        from: Revision,
        changed: watch::Receiver<Revision>,
        lag_limit: usize,
    ) -> Self {
        Self {
            state,
            bucket,
            prefix: prefix.into(),
            position: from,
            changed,
            lag_limit,
            caught_up: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), WatchError> {
        read(&self.state)
            .events_after(&self.bucket, &self.prefix, self.position, 0)
            .map(|_| ())
    }

    /// Every event up to this revision has been handed out: what a bookmark may say.
    pub fn position(&self) -> Revision {
        self.position
    }

    /// Waits for events; never answers an empty list. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        loop {
            // Marked as seen before looking: what happens in between wakes the wait below.
            self.changed.borrow_and_update();
            let events = self.take()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.changed.changed().await.is_err() {
                return Err(WatchError::Closed);
            }
        }
    }

    /// The events published by now, at most a chunk of them, without waiting. Empty means that the watcher has caught up
    /// and its position is the store's revision.
    pub fn take(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        loop {
            let state = read(&self.state);
            let pending = state.events_after(&self.bucket, &self.prefix, self.position, CHUNK)?;
            if state.closed && pending.behind == 0 {
                return Err(WatchError::Closed);
            }
            drop(state);
            if self.caught_up && pending.behind > self.lag_limit {
                return Err(WatchError::TooSlow {
                    behind: pending.behind,
                });
            }
            self.position = pending.progress;
            self.caught_up |= pending.behind <= CHUNK;
            if !pending.events.is_empty() || pending.behind <= CHUNK {
                return Ok(pending.events);
            }
        }
    }
}
