//! The overlay: keeps the VXLAN mesh of one node in step with the Nodes of the cluster.
//!
//! One device in external (collect-metadata) mode; per peer one encapsulating route and one permanent neighbour; no
//! forwarding entries, no learning, no flooding. Restarting is the normal case: what is there is read, what is right
//! stays untouched, and traffic goes on meanwhile.
//!
//! Reading order: [`mesh`] (Nodes → peers and problems, pure) → [`plan`] (→ what should be, pure) → [`observe`] (what
//! is) → [`diff`] (→ operations, pure) → [`apply`] → [`reconcile`] (the loop), with [`image`] (what need not be looked at
//! again, pure) and [`change`] (what one change is about, pure). [`guard`] lets in VXLAN of peers only, [`egress`] says what
//! iptables does for pods, by a [`chain`] each, [`probe`] tries the way to each peer, [`files`] tells the CNI plugin and the
//! container runtime.

#![forbid(unsafe_code)]

pub mod admin;
pub mod apply;
pub mod chain;
pub mod change;
pub mod cleanup;
pub mod cli;
pub mod diff;
pub mod egress;
pub mod files;
pub mod guard;
pub mod image;
pub mod mesh;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod run;
pub mod status;

#[cfg(test)]
mod testing;
