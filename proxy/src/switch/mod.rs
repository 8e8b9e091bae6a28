//! Changing the mode while traffic flows: no connection and no flow of datagrams breaks, and none changes its backend.
//!
//! Both modes translate the same flows in the same way, so that for a moment both may be in force: the new one is brought
//! about in full, flows go over, then the old one goes. [`steps`] has the order, [`control`] the socket by which an operator
//! asks, [`crate::ebpf`] the flows themselves (`handover.rs`, `adopt.rs`).

pub mod control;
mod metrics;
mod steps;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::cli::Mode;

pub use metrics::Metrics;
pub use steps::{Outcome, SwitchError, give_over, take_over, to_ebpf, to_iptables};

/// A mode to change to, and who wants to hear how it goes.
#[derive(Debug)]
pub struct Order {
    pub mode: Mode,
    pub teller: Teller,
}

/// What whoever has asked for a change of mode is told. The last is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Update {
    /// What is being done.
    Progress(String),
    /// The mode is the one that was asked for.
    Done(String),
    /// The mode is the one that it was.
    Failed(String),
}

/// Tells of progress: in the log, and whoever has asked.
#[derive(Debug, Clone)]
pub struct Teller {
    listener: Option<mpsc::UnboundedSender<Update>>,
    started: Instant,
}

impl Teller {
    /// For somebody who listens.
    pub fn new(listener: mpsc::UnboundedSender<Update>) -> Self {
        Self {
            listener: Some(listener),
            started: Instant::now(),
        }
    }

    /// For the log alone.
    pub fn log() -> Self {
        Self {
            listener: None,
            started: Instant::now(),
        }
    }

    /// Since the change was asked for.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells of a step.
    pub fn progress(&self, what: impl Into<String>) {
        let what = what.into();
        let ms = self.elapsed().as_millis();
        tracing::info!(ms, "changing the mode: {what}");
        self.send(Update::Progress(format!("{ms:>6} ms  {what}")));
    }

    /// Tells that the mode is the one asked for.
    pub fn done(&self, what: String) {
        tracing::info!("{what}");
        self.send(Update::Done(what));
    }

    /// Tells why it is not.
    pub fn failed(&self, why: String) {
        tracing::error!("{why}");
        self.send(Update::Failed(why));
    }

    fn send(&self, update: Update) {
        if let Some(listener) = &self.listener {
            // Whoever has gone does not want to know.
            let _ = listener.send(update);
        }
    }
}
