//! Clusters in network namespaces: a topology as a value, brought up by the very binaries that serve a real node.
//!
//! A lab is an underlay (one bridge), an API server, any number of nodes with their daemons in namespaces and
//! cgroups of their own, and a place outside of the cluster. This crate links none of the daemons: it starts them,
//! waits for what they promise, and takes everything away again, also after a crash. It is what `seaway lab`, the
//! demo and the end-to-end suites are made of.
//!
//! Reading order: [`topology`] (the value) → [`names`] (what it is called on the machine) → [`Lab`] and [`up`] →
//! [`place`] (running things somewhere) → [`traffic`] → [`diagnose`] → [`down`].

mod daemon;
pub mod diagnose;
pub mod down;
mod error;
mod health;
mod kubectl;
pub mod lab;
pub mod names;
pub mod place;
mod pods;
mod record;
pub mod status;
pub mod topology;
pub mod traffic;
mod underlay;
pub mod up;
mod wait;

pub use daemon::Daemon;
pub use error::LabError;
pub use kubectl::kubectl_program;
pub use lab::Lab;
pub use names::LabName;
pub use place::{Finished, Place};
pub use topology::{LabConfig, Mode, NodeConfig};
pub use wait::eventually;
