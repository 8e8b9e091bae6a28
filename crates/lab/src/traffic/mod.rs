//! Traffic whose every answer tells who gave it: the echo server, the probe, and a load that loses nothing unseen.
//!
//! `seaway echo` and `seaway probe` are these modules behind a command line; in a lab they run as processes inside
//! the namespace and cgroup of a pod, so that every hook of the data plane sees them as it sees any workload.

pub mod answer;
pub mod echo;
pub mod load;
pub mod probe;

pub use answer::Answer;
pub use load::Load;
pub use probe::{Attempt, Probe, Summary, Transport};
