//! Typed errors.

use std::path::PathBuf;

use crate::record::Revision;

/// The store cannot be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the store {path} is in use by another process; stop that process or choose another data directory"
    )]
    Locked { path: PathBuf },
    #[error(
        "the store {path} was written with layout {found}, this program reads layout {expected}"
    )]
    Layout {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("the store {path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot {action} {path}: {reason}")]
    Io {
        action: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("writing to the store failed: {0}")]
    Write(String),
    #[error("a transaction panicked; nothing of it was written")]
    Panicked,
    #[error("the store is closed")]
    Closed,
}

/// The asked past or future is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("revision {asked} is compacted, history starts at {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} is in the future, the store is at {current}")]
    Future { asked: Revision, current: Revision },
}

/// Why a watch cannot start or go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    #[error("revision {asked} is compacted, history starts at {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("the watcher fell {behind} events behind")]
    TooSlow { behind: usize },
    #[error("the store is closed")]
    Closed,
}
