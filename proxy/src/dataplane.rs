//! What a mode has to be able to do. The reconcile loop knows nothing else of iptables or eBPF.

use std::fmt;
use std::time::Duration;

use seaway_model::{Change, Desired, Family};
use serde::Serialize;

use crate::changes::Changes;

/// A way of putting the desired state into the kernel.
///
/// The flow is `observe` and `rehearse` once at start, then `plan` and `apply` for each change. `plan` is pure and decides all;
/// `apply` executes and decides nothing.
pub trait Dataplane {
    /// What `apply` would do. Its `Display` is exactly that, for `seaway-proxy plan`.
    type Plan: fmt::Display;
    /// What the kernel holds of it; its `Display` is for `seaway-proxy dump`, its JSON for programs.
    type Held: fmt::Display + Serialize;

    /// Reads what an earlier run left in the kernel into the in-memory image, so that the first plan adopts it.
    /// Changes nothing in the kernel.
    fn observe(&mut self) -> impl Future<Output = Result<(), ApplyError>>;

    /// Tries in the kernel what plans will need, between [`observe`](Self::observe) and [`plan`](Self::plan), unless
    /// that is known; leaves no trace. May settle for less than was observed for, and then observes anew.
    fn rehearse(&mut self) -> impl Future<Output = Result<(), ApplyError>> {
        std::future::ready(Ok(()))
    }

    /// The operations that bring the kernel from the image to `desired`, for what `change` touches. With
    /// [`Change::Full`] everything that is ours and not wanted goes away.
    fn plan(&self, desired: &Desired, change: &Change) -> Self::Plan;

    /// What a plan changes in the kernel as it was observed.
    fn changes(&self, plan: &Self::Plan) -> Changes;

    /// Executes a plan and moves the image on. After an error the caller observes again and plans in full.
    fn apply(&mut self, plan: Self::Plan) -> impl Future<Output = Result<Report, ApplyError>>;

    /// Waits for something in the kernel that needs this data plane's attention (a new pod link to attach to, rules
    /// edited by somebody else) and deals with it. Cancel-safe; returns the reason when a full sync is needed.
    fn watch(&mut self) -> impl Future<Output = Result<String, ApplyError>>;

    /// Reads what is in force.
    fn held(&mut self) -> impl Future<Output = Result<Self::Held, ApplyError>>;

    /// The same for people.
    fn dump(&mut self) -> impl Future<Output = Result<String, ApplyError>> {
        async { Ok(self.held().await?.to_string()) }
    }

    /// Removes everything that is ours from the kernel and verifies that nothing is left. Needs no API and no
    /// earlier `observe`; what is not there is no error. Returns one line per kind of thing that was removed.
    fn cleanup(&mut self) -> impl Future<Output = Result<Vec<String>, ApplyError>>;
}

/// What an apply did, for the log line and the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Kernel operations executed: rules written, map entries changed.
    pub operations: usize,
    /// Of which deletions.
    pub deletions: usize,
    /// Time spent in the kernel or in the tool.
    pub took: Duration,
    /// Of which waiting for a lock that others held.
    pub lock_wait: Duration,
    /// Partial syncs that would not have ended where a full one does, and were replaced by one.
    pub corrections: usize,
    /// Rules of ours that there are now, by family and table; empty where there are no rules.
    pub rules: Vec<(Family, &'static str, usize)>,
    /// Table and the variant of iptables that keeps it; empty where there are no rules.
    pub places: Vec<(&'static str, &'static str)>,
}

/// Why the kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel or a tool said no; the same attempt may pass later.
    #[error("{what}: {reason}")]
    Failed { what: String, reason: String },
    /// The same of `iptables-restore`: no rule of a table of this family was changed.
    #[error("{what}: {reason}")]
    Refused {
        family: Family,
        what: String,
        reason: String,
    },
    /// This machine lacks something; retrying is pointless until an operator acts.
    #[error("{what} is missing: {remedy}")]
    Missing { what: String, remedy: String },
}
