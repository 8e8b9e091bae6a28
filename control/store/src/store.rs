//! The handle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use tokio::sync::{oneshot, watch};

use crate::committer::{Command, Committer, Outcome};
use crate::engine::{Engine, Loaded, Memory, Redb};
use crate::error::{ReadError, StoreError, WatchError};
use crate::options::Options;
use crate::record::{Record, Revision};
use crate::state::{Listing, State};
use crate::txn::Txn;
use crate::watch::Watcher;

/// Poisoned means that a panic happened elsewhere while the lock was held; every critical section here leaves the state
/// whole, so readers go on.
pub(crate) fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

/// See [`read`].
pub(crate) fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

/// A revisioned key-value store. Clones share it; the last one to go closes it and waits for what was accepted.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<RwLock<State>>,
    revision: watch::Receiver<Revision>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    options: Options,
}

impl Store {
    /// Opens or creates the store in `dir` (created with mode 0700, the file with 0600).
    pub fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let (engine, loaded) = Redb::open(dir)?;
        Self::start(Box::new(engine), loaded, options)
    }

    /// A store that forgets everything when closed: for tests and throw-away clusters.
    pub fn memory(options: Options) -> Result<Self, StoreError> {
        Self::start(Box::new(Memory), Loaded::default(), options)
    }

    fn start(
        engine: Box<dyn Engine>,
        loaded: Loaded,
        options: Options,
    ) -> Result<Self, StoreError> {
        let mut state = State::new(loaded.revision, loaded.compacted, options.ring_limit);
        for (bucket, record) in loaded.records {
            state.load_record(&bucket, record);
        }
        for event in loaded.events {
            state.load_event(Arc::new(event));
        }
        let state = Arc::new(RwLock::new(state));
        let (revision_sender, revision) = watch::channel(loaded.revision);
        let (commands, receiver) = mpsc::channel();
        let committer = Committer {
            state: state.clone(),
            revision: revision_sender,
            engine,
            options: options.clone(),
        };
        let committer = thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || committer.run(&receiver))
            .map_err(|error| StoreError::Write(error.to_string()))?;
        let inner = Inner {
            state,
            revision,
            commands: Mutex::new(Some(commands)),
            committer: Mutex::new(Some(committer)),
            options,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Runs `transaction` alone against the newest state. `Ok` from it is answered once durable and visible; `Err` undoes
    /// its writes. Dropping the future does not stop the commit.
    pub async fn commit<T, E, F>(&self, transaction: F) -> Result<T, E>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Commit(Box::new(move |txn| {
            run(transaction, txn, sender)
        })))?;
        receiver
            .await
            .unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// [`Store::commit`] for threads outside an async runtime.
    pub fn commit_blocking<T, E, F>(&self, transaction: F) -> Result<T, E>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Commit(Box::new(move |txn| {
            run(transaction, txn, sender)
        })))?;
        receiver
            .blocking_recv()
            .unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Forgets the history up to and including `revision`; records stay.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |result| {
            // Nobody waits any more: nothing to tell.
            let _ = sender.send(result);
        });
        self.send(Command::Compact { revision, reply })?;
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    fn send(&self, command: Command) -> Result<(), StoreError> {
        let commands = self
            .inner
            .commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sender = commands.as_ref().ok_or(StoreError::Closed)?;
        sender.send(command).map_err(|_| StoreError::Closed)
    }

    /// The revision of the newest published write.
    pub fn revision(&self) -> Revision {
        read(&self.inner.state).revision
    }

    /// History starts after this revision.
    pub fn compacted(&self) -> Revision {
        read(&self.inner.state).compacted
    }

    /// Waits until `revision` is published.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        let mut current = self.inner.revision.clone();
        current
            .wait_for(|current| *current >= revision)
            .await
            .map_err(|_| StoreError::Closed)?;
        Ok(())
    }

    pub fn get(&self, bucket: &str, key: &str) -> Option<Arc<Record>> {
        read(&self.inner.state).get(bucket, key).cloned()
    }

    /// The records whose key starts with `prefix`, in key order: now, or as of revision `at`.
    pub fn list(
        &self,
        bucket: &str,
        prefix: &str,
        at: Option<Revision>,
    ) -> Result<Listing, ReadError> {
        read(&self.inner.state).list(bucket, prefix, at)
    }

    /// Follows the events of a bucket after revision `from`, which may lie in the future.
    pub fn watch(&self, bucket: &str, prefix: &str, from: Revision) -> Result<Watcher, WatchError> {
        let bucket: Arc<str> = Arc::from(bucket);
        let changed = write(&self.inner.state).subscribe(&bucket);
        let lag_limit = self.inner.options.watch_lag_limit;
        let watcher = Watcher::new(
            self.inner.state.clone(),
            bucket,
            prefix,
            from,
            changed,
            lag_limit,
        );
        watcher.check()?;
        Ok(watcher)
    }
}

/// Runs a transaction behind a wall: a panic in it undoes its writes and reaches only its caller.
fn run<T, E, F>(transaction: F, txn: &mut Txn<'_>, sender: oneshot::Sender<Result<T, E>>) -> Outcome
where
    F: FnOnce(&mut Txn<'_>) -> Result<T, E>,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let result = catch_unwind(AssertUnwindSafe(|| transaction(txn)))
        .unwrap_or_else(|_| Err(E::from(StoreError::Panicked)));
    let keep = result.is_ok();
    let reply = Box::new(move |written: Result<(), StoreError>| {
        // Nobody waits any more: nothing to tell.
        let _ = sender.send(written.map_err(E::from).and(result));
    });
    Outcome { keep, reply }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let committer = self
            .committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The last handle may be dropped by a transaction, on the committer itself: that one cannot wait for itself.
        if let Some(committer) =
            committer.filter(|committer| committer.thread().id() != thread::current().id())
            && committer.join().is_err()
        {
            tracing::error!("the committer thread panicked");
        }
    }
}
