//! Readiness probes: when to ask, whom, and what a row of answers means.

pub mod ask;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// First interval between probes until the first success; it doubles up to the period. A program is often ready
/// milliseconds after its start, and the traffic of a new replica should not wait for a period of ten seconds.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);

/// A probe with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub check: Check,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    Tcp {
        host: Option<String>,
        port: u16,
    },
    Http {
        host: Option<String>,
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
    },
    Exec {
        command: Vec<String>,
    },
}

/// Reads a probe of a container; the error says what of it this agent cannot do.
pub fn spec(container: &Container, probe: &Probe) -> Result<Spec, String> {
    let check = if let Some(tcp) = &probe.tcp_socket {
        Check::Tcp {
            host: tcp.host.clone(),
            port: port(container, &tcp.port)?,
        }
    } else if let Some(http) = &probe.http_get {
        if http
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme != "HTTP")
        {
            return Err("httpGet with scheme HTTPS is not supported by this agent".to_owned());
        }
        let headers = http.http_headers.iter().flatten();
        Check::Http {
            host: http.host.clone(),
            port: port(container, &http.port)?,
            path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        }
    } else if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        if command.is_empty() {
            return Err("exec.command: Required value".to_owned());
        }
        Check::Exec { command }
    } else {
        return Err("only tcpSocket, httpGet and exec are supported by this agent".to_owned());
    };
    let at_least_one = |value: Option<i32>, default: u32| {
        value
            .and_then(|v| u32::try_from(v).ok())
            .filter(|v| *v > 0)
            .unwrap_or(default)
    };
    let seconds = |value, default| Duration::from_secs(at_least_one(value, default).into());
    Ok(Spec {
        check,
        initial_delay: Duration::from_secs(at_least_one(probe.initial_delay_seconds, 0).into()),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        success_threshold: at_least_one(probe.success_threshold, 1),
        failure_threshold: at_least_one(probe.failure_threshold, 3),
    })
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| match port {
            IntOrString::Int(number) => format!("{number} is not a port"),
            IntOrString::String(name) => format!("the container has no port named {name:?}"),
        })
}

/// Turns answers into readiness. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judge {
    success_threshold: u32,
    failure_threshold: u32,
    period: Duration,
    ready: bool,
    /// Equal answers in a row.
    row: u32,
    last: Option<bool>,
    next_fast: Option<Duration>,
}

impl Judge {
    /// A judge that holds the container for `ready` until the answers say otherwise.
    pub fn new(spec: &Spec, ready: bool) -> Self {
        Self {
            success_threshold: spec.success_threshold,
            failure_threshold: spec.failure_threshold,
            period: spec.period,
            ready,
            row: 0,
            last: None,
            next_fast: (!ready).then_some(FIRST_INTERVAL),
        }
    }

    /// Takes one answer; the new readiness if it changed.
    pub fn take(&mut self, success: bool) -> Option<bool> {
        self.row = if self.last == Some(success) {
            self.row.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.ready == success || self.row < threshold {
            return None;
        }
        self.ready = success;
        self.next_fast = None;
        Some(success)
    }

    /// How long to wait before the next probe.
    pub fn interval(&mut self) -> Duration {
        match self.next_fast {
            Some(fast) if fast < self.period => {
                self.next_fast = Some(fast * 2);
                fast
            }
            _ => self.period,
        }
    }
}
