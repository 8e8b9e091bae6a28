//! Who has which address: a pure pool that chooses, and a ledger of files that remembers.

mod entry;
mod ledger;
pub mod pool;
mod range;
mod source;

pub use entry::{Entry, Lease};
pub use ledger::{Ledger, LedgerError};
pub use range::{Range, of_config};
pub use source::{Assigned, Source};
