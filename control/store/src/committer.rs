//! The one thread that writes: runs transactions, makes a batch durable, publishes it, answers.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::error::StoreError;
use crate::options::Options;
use crate::record::Revision;
use crate::state::State;
use crate::store::write;
use crate::txn::{Overlay, Txn, now_millis};

/// Called once when the fate of a transaction is known.
pub(crate) type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A transaction that ran: whether to keep its writes, and whom to tell.
pub(crate) struct Outcome {
    pub(crate) keep: bool,
    pub(crate) reply: Reply,
}

pub(crate) enum Command {
    Commit(Box<dyn FnOnce(&mut Txn<'_>) -> Outcome + Send>),
    Compact { revision: Revision, reply: Reply },
}

/// More transactions than this do not share an fsync, so that none waits for a long batch.
const BATCH: usize = 256;

pub(crate) struct Committer {
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) revision: tokio::sync::watch::Sender<Revision>,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) options: Options,
}

impl Committer {
    /// Serves until every sender is gone.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        let mut next_compaction = Instant::now() + self.options.compact_interval;
        loop {
            // Looked at between batches: commands that never stop coming do not put it off.
            let wait = next_compaction.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                self.compact_by_age();
                next_compaction = Instant::now() + self.options.compact_interval;
                continue;
            }
            match commands.recv_timeout(wait) {
                Ok(first) => self.batch(first, commands),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        write(&self.state).close();
    }

    fn batch(&mut self, first: Command, commands: &Receiver<Command>) {
        let mut overlay = Overlay::default();
        let mut replies = Vec::new();
        let mut compactions = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Commit(transaction) => {
                    let outcome = transaction(&mut Txn::new(&self.state, &mut overlay));
                    if outcome.keep {
                        overlay.keep();
                    } else {
                        overlay.roll_back();
                    }
                    replies.push(outcome.reply);
                }
                Command::Compact { revision, reply } => compactions.push((revision, reply)),
            }
            next = if replies.len() < BATCH {
                commands.try_recv().ok()
            } else {
                None
            };
        }
        let written = if overlay.events.is_empty() {
            Ok(())
        } else {
            self.engine.append(&overlay.events)
        };
        match &written {
            Ok(()) => self.publish(&overlay),
            Err(error) => {
                tracing::error!(%error, "a batch of writes is lost and its writers are told so");
            }
        }
        // Also a refusal waits for the batch: it may rest on a write that the batch carries.
        for reply in replies {
            reply(written.clone());
        }
        for (revision, reply) in compactions {
            reply(self.compact(revision));
        }
    }

    fn publish(&self, overlay: &Overlay) {
        let Some(last) = overlay.events.last().map(|event| event.revision()) else {
            return;
        };
        let mut state = write(&self.state);
        for event in &overlay.events {
            state.apply(event.clone());
        }
        state.notify(overlay.events.iter().map(|event| &event.bucket));
        drop(state);
        self.revision.send_replace(last);
    }

    fn compact_by_age(&mut self) {
        let retention = u64::try_from(self.options.retention.as_millis()).unwrap_or(u64::MAX);
        let revision = write(&self.state).revision_before(now_millis().saturating_sub(retention));
        let started = Instant::now();
        match self.compact(revision) {
            Ok(()) if started.elapsed() > Duration::from_secs(1) => {
                tracing::warn!(revision, elapsed = ?started.elapsed(), "compaction was slow");
            }
            Ok(()) => tracing::debug!(revision, "compacted"),
            Err(error) => {
                tracing::error!(%error, revision, "compaction failed, the next one tries again");
            }
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        let (current, compacted) = {
            let state = write(&self.state);
            (state.revision, state.compacted)
        };
        let revision = revision.min(current);
        if revision <= compacted {
            return Ok(());
        }
        self.engine.compact(revision)?;
        write(&self.state).compact(revision);
        Ok(())
    }
}
