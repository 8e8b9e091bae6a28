//! A Pod object reduced to what decisions need. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

/// kubelet's and the API's default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// When an exited container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// Why nothing of a Pod should run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Deletion was asked for; the object waits for us.
    Deleted,
    /// The object is gone already: forced, or while we were away.
    Gone,
    /// The API says Succeeded or Failed.
    Finished,
}

/// What decisions need of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub stop: Option<Stop>,
    pub grace: SignedDuration,
    pub restart_policy: RestartPolicy,
    pub init: Vec<String>,
    pub containers: Vec<String>,
}

/// Reads a Pod; `gone` when the API does not have it any more.
pub fn view(pod: &Pod, gone: bool) -> View {
    let spec = pod.spec.as_ref();
    let finished = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    let stop = if gone {
        Some(Stop::Gone)
    } else if pod.metadata.deletion_timestamp.is_some() {
        Some(Stop::Deleted)
    } else {
        finished.then_some(Stop::Finished)
    };
    let grace = pod
        .metadata
        .deletion_grace_period_seconds
        .or_else(|| spec.and_then(|spec| spec.termination_grace_period_seconds))
        .unwrap_or(DEFAULT_GRACE_SECONDS);
    let restart_policy = match spec.and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    };
    let names = |containers: Option<&Vec<Container>>| -> Vec<String> {
        containers
            .into_iter()
            .flatten()
            .map(|c| c.name.clone())
            .collect()
    };
    View {
        stop,
        grace: SignedDuration::from_secs(grace.max(0)),
        restart_policy,
        init: names(spec.and_then(|spec| spec.init_containers.as_ref())),
        containers: names(spec.map(|spec| &spec.containers)),
    }
}

/// The container of this name, init containers included.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|container| container.name == name)
}

/// Parts of a Pod that this agent does not honour, worded for an Event: silence would be worse.
pub fn ignored(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let mut ignored = Vec::new();
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let name = &container.name;
        for (field, set) in [
            (
                "volumeMounts",
                container
                    .volume_mounts
                    .as_ref()
                    .is_some_and(|v| !v.is_empty()),
            ),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
            ("securityContext", container.security_context.is_some()),
            ("restartPolicy", container.restart_policy.is_some()),
        ] {
            if set {
                ignored.push(format!("containers[{name}].{field}"));
            }
        }
    }
    if spec.active_deadline_seconds.is_some() {
        ignored.push("activeDeadlineSeconds".to_owned());
    }
    ignored
}

/// Whether the Pod uses the node's own network namespace.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// The API's time format: RFC 3339 in whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
