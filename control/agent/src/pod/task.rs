//! The shell around one Pod: performs what [`machine`](super::machine) decides, keeps the records, tells the API.

mod containers;
mod report;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use seaway_kernel::cgroup;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::facts::{Facts, Failure, Sandbox};
use super::machine::{Action, Plan, decide};
use super::view::{View, ignored, view};
use crate::events::{Kind, Recorder};
use crate::logs::Registry;
use crate::process::{Ending, Terminator, cgroup_of};
use crate::records::{ContainerRecord, PodDir, Store};
use crate::sandbox::Sandboxes;
use report::Reporter;

/// What all Pods of the node share.
pub struct Context {
    pub client: Client,
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    pub cgroup_root: PathBuf,
    pub program: PathBuf,
    pub store: Store,
    pub sandboxes: Sandboxes,
    pub recorder: Recorder,
    pub logs: Registry,
}

/// The object as last seen by the supervisor.
#[derive(Debug, Clone)]
pub struct Seen {
    pub pod: Arc<Pod>,
    /// The API does not have it any more.
    pub gone: bool,
}

/// News from the processes and probes of a Pod.
#[derive(Debug)]
enum Message {
    Exited {
        container: String,
        attempt: u32,
        ending: Ending,
    },
    Ready {
        container: String,
        attempt: u32,
        ready: bool,
    },
}

/// What belongs to a container that runs.
#[derive(Debug)]
struct Live {
    terminator: Terminator,
    probe: Option<AbortHandle>,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

/// Runs one Pod until it is forgotten. Dropping the future leaves its processes alone.
pub async fn run(context: Arc<Context>, mut seen: watch::Receiver<Seen>) {
    let now = seen.borrow_and_update().clone();
    let uid = now.pod.metadata.uid.clone().unwrap_or_default();
    let (sender, mut messages) = mpsc::channel(64);
    let mut task = Task {
        dir: context.store.pod(&uid),
        reporter: Reporter::start(context.client.clone(), &now.pod),
        context,
        uid,
        seen: now,
        facts: Facts::default(),
        records: BTreeMap::new(),
        live: BTreeMap::new(),
        sender,
        saved: None,
    };
    task.adopt().await;
    for field in ignored(&task.seen.pod) {
        task.event(
            Kind::Warning,
            "FieldIgnored",
            format!("{field} is not supported by this agent"),
        );
    }
    loop {
        task.save_pod();
        let view = view(&task.seen.pod, task.seen.gone);
        let plan = decide(&view, &task.facts, Timestamp::now());
        task.publish(&view);
        if plan.actions.contains(&Action::Forget) {
            task.forget();
            return;
        }
        if task.perform(&view, &plan).await {
            continue;
        }
        let nap = plan.wake_at.map_or(Duration::from_secs(3600), |at| {
            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
        });
        tokio::select! {
            changed = seen.changed() => {
                if changed.is_err() {
                    debug!(uid = task.uid, "the supervisor is gone");
                    return;
                }
                task.seen = seen.borrow_and_update().clone();
            }
            Some(message) = messages.recv() => task.take(message),
            () = tokio::time::sleep(nap) => {}
        }
    }
}

struct Task {
    context: Arc<Context>,
    uid: String,
    dir: PodDir,
    seen: Seen,
    facts: Facts,
    records: BTreeMap<String, ContainerRecord>,
    live: BTreeMap<String, Live>,
    sender: mpsc::Sender<Message>,
    reporter: Reporter,
    /// The object as it is in the record.
    saved: Option<Arc<Pod>>,
}

impl Task {
    /// Picks up what an earlier agent left.
    async fn adopt(&mut self) {
        let pod = self.seen.pod.clone();
        if let Some(ips) = self.context.sandboxes.adopt(&pod, &self.dir).await {
            self.facts.sandbox = Sandbox::Ready { ips };
        }
        self.adopt_containers();
    }

    /// Performs the actions of a plan; whether there were any, so that the next plan is made at once.
    async fn perform(&mut self, view: &View, plan: &Plan) -> bool {
        for action in &plan.actions {
            debug!(uid = self.uid, ?action, "pod");
            match action {
                Action::SetUpSandbox => self.set_up_sandbox().await,
                Action::Start(name) => self.start(name),
                Action::Terminate(name) => self.terminate(name),
                Action::Kill(name) => self.kill(name),
                Action::TearDownSandbox => self.tear_down_sandbox().await,
                Action::DeleteFromApi => self.delete_from_api(view).await,
                Action::Forget => {}
            }
        }
        !plan.actions.is_empty()
    }

    async fn set_up_sandbox(&mut self) {
        let begin = std::time::Instant::now();
        let pod = self.seen.pod.clone();
        match self.context.sandboxes.set_up(&pod, &self.dir).await {
            Ok(ips) => {
                info!(
                    pod = pod.metadata.name,
                    ?ips,
                    ms = begin.elapsed().as_millis(),
                    "sandbox ready"
                );
                self.facts.sandbox = Sandbox::Ready { ips };
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                warn!(pod = pod.metadata.name, "{message}");
                self.event(Kind::Warning, "FailedCreatePodSandBox", message.clone());
                let before = match &self.facts.sandbox {
                    Sandbox::Absent { failure } => failure.as_ref(),
                    Sandbox::Ready { .. } => None,
                };
                let failure = Some(Failure::after(before, message, Timestamp::now()));
                self.facts.sandbox = Sandbox::Absent { failure };
            }
        }
    }

    async fn tear_down_sandbox(&mut self) {
        let pod = self.seen.pod.clone();
        let mut done = cgroup::kill(&cgroup_of(&self.context.cgroup_root, &self.uid, None))
            .map_err(|error| error.to_string());
        if done.is_ok() {
            done = self
                .context
                .sandboxes
                .tear_down(&pod, &self.dir)
                .await
                .map_err(|error| error.to_string());
        }
        match done {
            Ok(()) => {
                self.facts.sandbox = Sandbox::Absent { failure: None };
                self.facts.teardown_failure = None;
            }
            Err(error) => {
                let message = format!("error killing pod: {error}");
                warn!(pod = pod.metadata.name, "{message}");
                self.event(Kind::Warning, "FailedKillPod", message.clone());
                let before = self.facts.teardown_failure.as_ref();
                self.facts.teardown_failure =
                    Some(Failure::after(before, message, Timestamp::now()));
            }
        }
    }

    async fn delete_from_api(&mut self, view: &View) {
        self.publish(view);
        match self.reporter.delete().await {
            // The records go only now: until here a restarted agent would have to find them.
            Ok(()) => self.seen.gone = true,
            Err(error) => {
                let before = self.facts.api_failure.as_ref();
                warn!(
                    pod = self.seen.pod.metadata.name,
                    "cannot delete the pod from the API: {error}"
                );
                self.facts.api_failure = Some(Failure::after(before, error, Timestamp::now()));
            }
        }
    }

    /// Removes the last traces.
    fn forget(&self) {
        // The kernel takes a moment to empty a cgroup after its last process; the supervisor sweeps what stays.
        if let Err(error) = cgroup::delete(&cgroup_of(&self.context.cgroup_root, &self.uid, None)) {
            debug!("{error}");
        }
        if let Err(error) = self.dir.remove() {
            warn!("{error}");
        }
        self.context.logs.forget(&self.seen.pod);
        info!(
            pod = self.seen.pod.metadata.name,
            uid = self.uid,
            "forgotten"
        );
    }

    fn save_pod(&mut self) {
        let pod = &self.seen.pod;
        if self
            .saved
            .as_ref()
            .is_some_and(|saved| Arc::ptr_eq(saved, pod))
            || self.seen.gone
        {
            return;
        }
        match self.dir.save_pod(pod) {
            Ok(()) => self.saved = Some(pod.clone()),
            Err(error) => warn!("{error}"),
        }
    }

    fn publish(&mut self, view: &View) {
        self.context
            .logs
            .publish(&self.seen.pod, &self.dir, &self.facts);
        self.reporter
            .report(&self.seen.pod, view, &self.facts, &self.context.node_ips);
    }

    fn event(&self, kind: Kind, reason: &'static str, message: String) {
        self.context
            .recorder
            .pod(&self.seen.pod, kind, reason, message);
    }
}
