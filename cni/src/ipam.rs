//! Who has which address: a pure pool that chooses, and a ledger of files that remembers.

mod entry;
mod ledger;
pub mod pool;

pub use entry::{Entry, Record};
pub use ledger::{Ledger, LedgerError};
