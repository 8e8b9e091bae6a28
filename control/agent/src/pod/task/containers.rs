//! Containers of a Pod: start, stop, adopt, take note of the end.

use jiff::Timestamp;
use seaway_kernel::cgroup;
use tracing::{debug, info, warn};

use super::super::backoff::HEALTHY_RUN;
use super::super::facts::{ContainerFacts, Exit, Failure, Running, Sandbox, StartFailure};
use super::super::view::container;
use super::{Live, Message, Task};
use crate::container::{Launch, NodeFacts, Refusal, launch};
use crate::events::Kind;
use crate::probe;
use crate::process::{self, Ending, Handle, Started, cgroup_of, exit_code, is_executable};
use crate::records::ContainerRecord;
use crate::sandbox::Sandboxes;

const UNKNOWN_EXIT: &str = "The container ended while no agent of this node watched its process";

impl Task {
    /// Reads the records and takes over what still runs.
    pub(super) fn adopt_containers(&mut self) {
        let same_boot = self
            .dir
            .sandbox()
            .is_some_and(|sandbox| sandbox.boot_id == self.context.sandboxes.boot_id());
        for (name, record) in self.dir.containers() {
            let facts = ContainerFacts {
                attempt: record.attempt,
                exit: record.exit.clone(),
                last_exit: record.last_exit.clone(),
                streak: record.streak,
                ..ContainerFacts::default()
            };
            let process = record.process.filter(|_| same_boot);
            let unfinished = record.exit.is_none();
            self.facts.containers.insert(name.clone(), facts);
            self.records.insert(name.clone(), record);
            let handle = process.and_then(|id| {
                process::adopt(id)
                    .inspect_err(|error| warn!("{error}"))
                    .ok()
                    .flatten()
            });
            match handle {
                Some(handle) => {
                    info!(
                        pod = self.seen.pod.metadata.name,
                        container = name,
                        pid = handle.id().pid,
                        "adopted"
                    );
                    let ready = self.was_ready(&name);
                    if let Err(error) = self.attend(&name, handle, ready) {
                        warn!("{error}");
                        self.ended(&name, None);
                    }
                }
                None if unfinished => self.ended(&name, None),
                None => {}
            }
        }
    }

    /// Whether the API holds this very container for ready; an agent's restart must not take it out of Services.
    fn was_ready(&self, name: &str) -> bool {
        let status = self.seen.pod.status.as_ref();
        let statuses = status.and_then(|status| status.container_statuses.as_ref());
        let restarts = self
            .facts
            .containers
            .get(name)
            .map_or(0, |c| c.attempt.saturating_sub(1));
        statuses.into_iter().flatten().any(|s| {
            s.name == name && s.ready && u32::try_from(s.restart_count).ok() == Some(restarts)
        })
    }

    pub(super) fn start(&mut self, name: &str) {
        let launched = self.resolve(name).and_then(|launch| {
            self.launch(name, &launch).map_err(|message| Refusal {
                reason: "RunContainerError",
                message,
            })
        });
        match launched {
            Ok(()) => self.event(Kind::Normal, "Started", format!("Started container {name}")),
            Err(refusal) => self.refuse(name, refusal),
        }
    }

    fn resolve(&self, name: &str) -> Result<Launch, Refusal> {
        let pod = &self.seen.pod;
        let Some(container) = container(pod, name) else {
            return Err(Refusal {
                reason: "CreateContainerError",
                message: format!("the pod has no container {name:?}"),
            });
        };
        let pod_ips = match &self.facts.sandbox {
            Sandbox::Ready { ips } => ips.as_slice(),
            Sandbox::Absent { .. } => &[],
        };
        let node = NodeFacts {
            program: &self.context.program,
            node_name: &self.context.node_name,
            node_ips: &self.context.node_ips,
            pod_ips,
        };
        launch(pod, container, &node, is_executable)
    }

    fn launch(&mut self, name: &str, launch: &Launch) -> Result<(), String> {
        let before = self.facts.containers.entry(name.to_owned()).or_default();
        let record = ContainerRecord {
            attempt: before.attempt + 1,
            process: None,
            started_at: Timestamp::now(),
            exit: None,
            last_exit: before.exit.take().or_else(|| before.last_exit.take()),
            streak: before.streak,
        };
        *before = ContainerFacts {
            attempt: record.attempt,
            last_exit: record.last_exit.clone(),
            streak: record.streak,
            ..ContainerFacts::default()
        };
        let attempt = record.attempt;
        // Written before the process exists: whatever an interrupted start leaves is in the cgroup, and goes with the
        // next start.
        self.records.insert(name.to_owned(), record);
        self.save_record(name)?;
        let log = self
            .dir
            .prepare_log(name, attempt)
            .map_err(|e| e.to_string())?;
        let netns = Sandboxes::netns(&self.dir).map_err(|e| e.to_string())?;
        let cgroup = cgroup_of(&self.context.cgroup_root, &self.uid, Some(name));
        match process::start(launch, &netns, &cgroup, &log).map_err(|e| e.to_string())? {
            Started::Running(handle) => {
                if let Some(record) = self.records.get_mut(name) {
                    record.process = Some(handle.id());
                }
                self.save_record(name)?;
                self.attend(name, handle, false)?;
            }
            Started::Ended(ending) => self.ended(name, ending),
        }
        Ok(())
    }

    /// Watches a running process, and probes it.
    fn attend(&mut self, name: &str, handle: Handle, was_ready: bool) -> Result<(), String> {
        let Some(record) = self.records.get(name) else {
            return Err(format!("no record of container {name}"));
        };
        let (attempt, started_at) = (record.attempt, record.started_at);
        let terminator = handle.terminator().map_err(|e| e.to_string())?;
        let (sender, container) = (self.sender.clone(), name.to_owned());
        tokio::spawn(async move {
            let ending = handle.ended().await;
            let message = Message::Exited {
                container,
                attempt,
                ending,
            };
            // No receiver: the Pod's task has ended, and with it the interest.
            let _ = sender.send(message).await;
        });
        let probe = self.start_probe(name, attempt, was_ready);
        let running = Running {
            started_at,
            ready: was_ready || probe.is_none(),
            signalled_at: None,
            killed: false,
        };
        let facts = self.facts.containers.entry(name.to_owned()).or_default();
        facts.running = Some(running);
        facts.start_failure = None;
        let probe = probe.flatten();
        self.live
            .insert(name.to_owned(), Live { terminator, probe });
        Ok(())
    }

    /// Starts the readiness probe: `None` without one, `Some(None)` for one that cannot be asked and keeps the container
    /// unready.
    fn start_probe(
        &self,
        name: &str,
        attempt: u32,
        was_ready: bool,
    ) -> Option<Option<tokio::task::AbortHandle>> {
        let container = container(&self.seen.pod, name)?;
        let spec = probe::spec(container, container.readiness_probe.as_ref()?);
        let target = self.probe_target(name);
        let (spec, target) = match (spec, target) {
            (Ok(spec), Ok(target)) => (spec, target),
            (Err(error), _) | (_, Err(error)) => {
                self.event(
                    Kind::Warning,
                    "Unhealthy",
                    format!("Readiness probe failed: {error}"),
                );
                return Some(None);
            }
        };
        let (sender, container) = (self.sender.clone(), name.to_owned());
        let (recorder, pod) = (self.context.recorder.clone(), self.seen.pod.clone());
        let mut silent = !was_ready;
        let report = move |change: Option<bool>, answer: &Result<(), String>| {
            // Failures before the first success are a program starting up, not news.
            if let Err(error) = answer
                && !silent
            {
                recorder.pod(
                    &pod,
                    Kind::Warning,
                    "Unhealthy",
                    format!("Readiness probe failed: {error}"),
                );
            }
            silent &= answer.is_err();
            if let Some(ready) = change {
                let message = Message::Ready {
                    container: container.clone(),
                    attempt,
                    ready,
                };
                let sender = sender.clone();
                tokio::spawn(async move { sender.send(message).await });
            }
        };
        let task = tokio::spawn(probe::ask::run(spec, target, was_ready, report));
        Some(Some(task.abort_handle()))
    }

    fn probe_target(&self, name: &str) -> Result<probe::ask::Target, String> {
        let ip = match &self.facts.sandbox {
            Sandbox::Ready { ips } => ips.first().copied(),
            Sandbox::Absent { .. } => None,
        };
        Ok(probe::ask::Target {
            ip: ip.ok_or("the pod has no address")?,
            netns: Sandboxes::netns(&self.dir).map_err(|e| e.to_string())?,
            env: self.resolve(name).map_err(|refusal| refusal.message)?.env,
            cgroup: cgroup_of(&self.context.cgroup_root, &self.uid, Some(name)),
        })
    }

    fn refuse(&mut self, name: &str, refusal: Refusal) {
        warn!(
            pod = self.seen.pod.metadata.name,
            container = name,
            "{}",
            refusal.message
        );
        self.event(
            Kind::Warning,
            "Failed",
            format!("Error: {}", refusal.message),
        );
        let facts = self.facts.containers.entry(name.to_owned()).or_default();
        let before = facts.start_failure.as_ref().map(|failure| &failure.failure);
        facts.start_failure = Some(StartFailure {
            reason: refusal.reason.to_owned(),
            failure: Failure::after(before, refusal.message, Timestamp::now()),
        });
    }

    pub(super) fn terminate(&mut self, name: &str) {
        self.event(
            Kind::Normal,
            "Killing",
            format!("Stopping container {name}"),
        );
        if let Some(live) = self.live.get(name)
            && let Err(error) = live.terminator.terminate()
        {
            warn!("{error}");
        }
        if let Some(running) = self.running_mut(name) {
            running.signalled_at = Some(Timestamp::now());
        }
    }

    pub(super) fn kill(&mut self, name: &str) {
        let cgroup = cgroup_of(&self.context.cgroup_root, &self.uid, Some(name));
        if let Err(error) = cgroup::kill(&cgroup) {
            warn!("{error}");
        }
        if let Some(running) = self.running_mut(name) {
            running.killed = true;
        }
    }

    pub(super) fn take(&mut self, message: Message) {
        let current = |name: &str, attempt: u32| {
            self.facts
                .containers
                .get(name)
                .is_some_and(|c| c.attempt == attempt)
        };
        match message {
            Message::Exited {
                container,
                attempt,
                ending,
            } if current(&container, attempt) => self.ended(&container, ending),
            Message::Ready {
                container,
                attempt,
                ready,
            } if current(&container, attempt) => {
                if let Some(running) = self.running_mut(&container) {
                    running.ready = ready;
                }
            }
            late => debug!(?late, "news of an earlier attempt"),
        }
    }

    /// Takes note of the end of a container's process. What it started dies with it, as with the first process of a PID
    /// namespace.
    fn ended(&mut self, name: &str, ending: Ending) {
        self.live.remove(name);
        let cgroup = cgroup_of(&self.context.cgroup_root, &self.uid, Some(name));
        if let Err(error) = cgroup::kill(&cgroup) {
            warn!("{error}");
        }
        let Some(record) = self.records.get_mut(name) else {
            return;
        };
        let (code, signal) = exit_code(ending);
        let now = Timestamp::now();
        let exit = Exit {
            code,
            signal,
            reason: match (ending, code) {
                (None, _) => "ContainerStatusUnknown",
                (_, 0) => "Completed",
                _ => "Error",
            }
            .to_owned(),
            message: ending.is_none().then(|| UNKNOWN_EXIT.to_owned()),
            started_at: record.started_at,
            finished_at: now,
        };
        info!(
            pod = self.seen.pod.metadata.name,
            container = name,
            code,
            "ended"
        );
        let healthy = now.duration_since(record.started_at) >= HEALTHY_RUN;
        record.streak = if healthy {
            1
        } else {
            record.streak.saturating_add(1)
        };
        record.process = None;
        record.exit = Some(exit.clone());
        let streak = record.streak;
        let facts = self.facts.containers.entry(name.to_owned()).or_default();
        facts.running = None;
        facts.exit = Some(exit);
        facts.streak = streak;
        if streak > 1 && self.seen.pod.metadata.deletion_timestamp.is_none() {
            let message = format!("Back-off restarting failed container {name}");
            self.event(Kind::Warning, "BackOff", message);
        }
        if let Err(error) = self.save_record(name) {
            warn!("{error}");
        }
    }

    fn running_mut(&mut self, name: &str) -> Option<&mut Running> {
        self.facts.containers.get_mut(name)?.running.as_mut()
    }

    fn save_record(&self, name: &str) -> Result<(), String> {
        let Some(record) = self.records.get(name) else {
            return Ok(());
        };
        self.dir
            .save_container(name, record)
            .map_err(|e| e.to_string())
    }
}
