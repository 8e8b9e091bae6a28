//! What all our daemons do alike, so that an operator learns it once: logs, signals, the name of the node, memory, the end, ranges
//! of addresses, privileges, and waiting for an answer.

mod cidr;
mod logging;
mod memory;
mod node_name;
mod patience;
pub mod privileges;
mod runtime;
mod signals;

pub use cidr::parse_cidr;
pub use logging::{LogArgs, LogFormat};
pub use memory::{release_memory, share_memory};
pub use node_name::host_name;
pub use patience::{SILENCE, answer_of};
pub use runtime::block_on;
pub use signals::stop_signal;
