//! What all our daemons do alike, so that an operator learns it once: logs, signals, the name of the node, memory.

mod logging;
mod memory;
mod node_name;
mod signals;

pub use logging::{LogArgs, LogFormat};
pub use memory::{release_memory, share_memory};
pub use node_name::host_name;
pub use signals::stop_signal;
