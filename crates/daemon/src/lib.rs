//! What all our daemons do alike, so that an operator learns it once: logs, signals, the name of the node.

mod logging;
mod node_name;
mod signals;

pub use logging::{LogArgs, LogFormat};
pub use node_name::host_name;
pub use signals::stop_signal;
