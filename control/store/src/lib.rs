//! A revisioned key-value log with watch and compaction: what an API server keeps its objects in.
//!
//! The semantics are those of etcd, as far as the Kubernetes API leans on them, in one process:
//!
//! * One global 64-bit [`Revision`]. Every write takes the next one, so revisions are dense and totally ordered over all
//!   buckets; a delete is a write too. The revision of a record is that of its last write.
//! * A commit is a closure over a [`Txn`], run by one thread: what it reads cannot change before it writes. Optimistic
//!   locking and allocation (addresses, ports) therefore belong inside the closure.
//! * Commits that wait together share one `fsync`. Order for each: durable, then visible, then acknowledged. Nobody can
//!   hold a revision that a crash takes back.
//! * A [`Watcher`] from revision N gives every later event of its bucket once and in order, also over a restart, until the
//!   history at N is compacted; then it says so with a typed error.
//! * A listing is a consistent snapshot of the present or of any revision not yet compacted.
//!
//! Records live in memory; the engine (redb file, or none for tests) makes them durable.

mod committer;
mod engine;
mod error;
mod options;
mod record;
mod state;
mod store;
mod txn;
mod watch;

pub use error::{ReadError, StoreError, WatchError};
pub use options::Options;
pub use record::{Event, EventKind, Record, Revision};
pub use state::Listing;
pub use store::Store;
pub use txn::Txn;
pub use watch::Watcher;
