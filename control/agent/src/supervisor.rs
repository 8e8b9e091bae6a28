//! The Pods of the node: one task each, from the first sight until nothing is left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use seaway_cluster::watch::{Event, Selection, objects};
use seaway_kernel::cgroup;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tracing::{debug, info, warn};

use crate::pod::task::{self, Context, Seen};
use crate::process::cgroup_of;

/// How often cgroups of forgotten Pods are swept.
const SWEEP: Duration = Duration::from_secs(30);

/// Follows the node's Pods for ever. Dropping the future stops the supervision, not the Pods.
pub async fn run(context: Arc<Context>) {
    let mut supervisor = Supervisor {
        tasks: HashMap::new(),
        ids: HashMap::new(),
        running: JoinSet::new(),
        listed: None,
        context: context.clone(),
    };
    // Before the API has said anything: what an earlier agent left running is looked after at once.
    match context.store.pods() {
        Ok(pods) => {
            for pod in pods {
                supervisor.see(pod);
            }
        }
        Err(error) => warn!("{error}"),
    }
    let selection = Selection {
        labels: None,
        fields: Some(format!("spec.nodeName={}", context.node_name)),
    };
    let mut events = objects::<Pod>(Api::all(context.client.clone()), selection);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => supervisor.handle(event),
                None => return,
            },
            Some(ended) = supervisor.running.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        warn!("the task of a pod failed: {error}");
                        error.id()
                    }
                };
                supervisor.ended(id);
            }
            _ = sweep.tick() => supervisor.sweep(),
        }
    }
}

struct Supervisor {
    context: Arc<Context>,
    /// By uid.
    tasks: HashMap<String, watch::Sender<Seen>>,
    ids: HashMap<Id, String>,
    running: JoinSet<()>,
    /// Uids of the list in progress.
    listed: Option<HashSet<String>>,
}

impl Supervisor {
    fn handle(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) | Event::Apply(pod) => {
                if let (Some(listed), Some(uid)) = (&mut self.listed, &pod.metadata.uid) {
                    listed.insert(uid.clone());
                }
                self.see(pod);
            }
            Event::Delete(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                self.gone(&uid);
            }
            Event::InitDone => {
                let Some(listed) = self.listed.take() else {
                    return;
                };
                let gone: Vec<String> = self
                    .tasks
                    .keys()
                    .filter(|uid| !listed.contains(*uid))
                    .cloned()
                    .collect();
                for uid in gone {
                    info!(
                        uid,
                        "the API no longer has this pod: removing what is left of it"
                    );
                    self.gone(&uid);
                }
            }
        }
    }

    /// Hands a Pod to its task, which is started on first sight.
    fn see(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let seen = Seen {
            pod: Arc::new(pod),
            gone: false,
        };
        if let Some(sender) = self.tasks.get(&uid) {
            sender.send_replace(seen);
            return;
        }
        debug!(uid, "new pod");
        let (sender, receiver) = watch::channel(seen);
        let handle = self
            .running
            .spawn(task::run(self.context.clone(), receiver));
        self.ids.insert(handle.id(), uid.clone());
        self.tasks.insert(uid, sender);
    }

    fn gone(&self, uid: &str) {
        if let Some(sender) = self.tasks.get(uid) {
            sender.send_modify(|seen| seen.gone = true);
        }
    }

    fn ended(&mut self, id: Id) {
        if let Some(uid) = self.ids.remove(&id) {
            self.tasks.remove(&uid);
        }
    }

    /// Removes empty cgroups of Pods that nobody knows; a busy one belongs to a process that is just ending.
    fn sweep(&self) {
        let root = self.context.cgroup_root.join("pods");
        let Ok(entries) = std::fs::read_dir(&root) else {
            return;
        };
        let directories: BTreeMap<String, _> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), ()))
            .collect();
        for uid in directories
            .keys()
            .filter(|uid| !self.tasks.contains_key(*uid))
        {
            let path = cgroup_of(&self.context.cgroup_root, uid, None);
            if let Err(error) = cgroup::delete(&path) {
                debug!("{error}");
            }
        }
    }
}
