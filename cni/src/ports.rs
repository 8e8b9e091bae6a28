//! Host ports, and masquerade where the config asks for it: elements of the sets and maps of one nftables table, whose
//! rules are made once per node. An element carries the attachment and the network in its comment, so that DEL and GC
//! find what is theirs without any record.

mod elements;
mod table;

pub use elements::{Tag, Wanted};
pub use table::{Removed, add, check, remove, remove_unless};
