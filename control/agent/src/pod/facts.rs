//! What is known about a Pod's sandbox and containers at one moment.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything observed about one Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub sandbox: Sandbox,
    /// By container name, init containers included.
    pub containers: BTreeMap<String, ContainerFacts>,
    /// The last attempt to remove the sandbox failed.
    pub teardown_failure: Option<Failure>,
    /// The last attempt to delete the Pod from the API failed.
    pub api_failure: Option<Failure>,
}

/// The network namespace of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    Absent {
        /// Why the last attempt failed.
        failure: Option<Failure>,
    },
    Ready {
        ips: Vec<IpAddr>,
    },
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::Absent { failure: None }
    }
}

/// Something that failed and will be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub at: Timestamp,
    /// Failures in a row.
    pub attempts: u32,
}

impl Failure {
    /// The failure that follows `previous`.
    pub fn after(previous: Option<&Self>, message: String, at: Timestamp) -> Self {
        Self {
            message,
            at,
            attempts: previous
                .map_or(0, |failure| failure.attempts)
                .saturating_add(1),
        }
    }
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerFacts {
    /// Number of starts so far.
    pub attempt: u32,
    pub running: Option<Running>,
    /// How the current attempt ended.
    pub exit: Option<Exit>,
    /// How the attempt before the current one ended.
    pub last_exit: Option<Exit>,
    /// Exits in a row that count for the back-off.
    pub streak: u32,
    pub start_failure: Option<StartFailure>,
}

/// A container's process that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub started_at: Timestamp,
    /// What the readiness probe says; true without one.
    pub ready: bool,
    /// When we asked it to stop.
    pub signalled_at: Option<Timestamp>,
    pub killed: bool,
}

/// How a container's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    pub code: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// As kubelet words it: Completed, Error, ContainerStatusUnknown.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
}

/// A container that could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// As kubelet words it: ErrImageNeverPull, CreateContainerError, RunContainerError.
    pub reason: String,
    pub failure: Failure,
}
