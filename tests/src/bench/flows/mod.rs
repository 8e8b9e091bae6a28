//! Numbered flows that last: for scenarios in which something happens to a node while they run.
//!
//! Reading order: [`worker`] (a process that serves or runs flows, in one namespace) → [`client`] (one flow, each byte
//! checked) → [`report`] (what came of them) → [`world`] (nodes, pods and Services) → [`daemon`] (the proxy) → [`crowd`]
//! (all flows at once).

pub mod client;
pub mod crowd;
pub mod daemon;
mod refusal;
pub mod report;
pub mod worker;
pub mod world;

pub use crowd::{Crowd, Group, Kind};
pub use daemon::Daemon;
pub use report::Report;
pub use world::World;
