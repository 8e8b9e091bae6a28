//! One replica more, and when each client first hears of it.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, future};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use seaway_lab::{Lab, Place, eventually};
use tokio::task::JoinHandle;

use super::first_answer::{Waiting, milliseconds, now};

/// For pods to come or go.
const SETTLE: Duration = Duration::from_secs(60);

/// What one client saw of one scale-up, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since kubectl was started.
    pub scale: f64,
    /// Since kubectl was done, so since the write at the latest.
    pub write: f64,
    /// Since the endpoint was seen ready. Negative when the node was faster than our own watch.
    pub ready: f64,
    pub failures: u64,
}

/// A pod to ask from.
#[derive(Debug)]
pub struct Asker {
    pub name: String,
    pub place: Place,
}

/// When each pod became a ready endpoint, as a watch tells it.
#[derive(Debug)]
pub struct Readiness {
    seen: Arc<Mutex<HashMap<String, u128>>>,
    task: JoinHandle<()>,
}

impl Readiness {
    /// Watches the EndpointSlices of a Service until it is dropped.
    pub fn watch(client: Client, service: &str) -> Self {
        let label = format!("kubernetes.io/service-name={service}");
        let slices: Api<EndpointSlice> = Api::default_namespaced(client);
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let record = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let config = watcher::Config::default().labels(&label);
            let events = watcher(slices, config).default_backoff().applied_objects();
            events
                .for_each(|slice| {
                    // A failed watch is made again by the watcher itself.
                    let at = now();
                    let ready = slice.iter().flat_map(ready_pods);
                    let mut seen = record.lock().unwrap_or_else(PoisonError::into_inner);
                    for pod in ready {
                        seen.entry(pod).or_insert(at);
                    }
                    future::ready(())
                })
                .await;
        });
        Self { seen, task }
    }

    fn of(&self, pod: &str) -> Option<u128> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(pod).copied()
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The pods behind the ready endpoints of a slice; as in Kubernetes, no condition at all means ready.
fn ready_pods(slice: &EndpointSlice) -> impl Iterator<Item = String> {
    slice.endpoints.iter().filter_map(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let pod = endpoint.target_ref.as_ref()?.name.clone()?;
        ready.then_some(pod)
    })
}

/// A Deployment behind a Service of the same name, and who asks for it.
pub struct Subject<'a> {
    pub lab: &'a Lab,
    pub name: &'a str,
    pub service: SocketAddr,
    pub clients: &'a [Asker],
    pub readiness: &'a Readiness,
}

impl Subject<'_> {
    /// Scales from one replica to two; a sample for each client, in their order.
    pub async fn scale_up(&self) -> Result<Vec<Sample>> {
        let known = self.settle().await?;
        let waiting = self.clients.iter().map(|client| {
            let file = format!("first-answer-{}", client.name);
            let output = self.lab.name().dir().join("scratch").join(file);
            Waiting::start(&client.place, self.service, &known, output)
        });
        let waiting = future::try_join_all(waiting).await?;

        let started = now();
        self.replicas(2).await?;
        let written = now();
        let answers = waiting.into_iter().map(Waiting::finish);
        let answers = future::try_join_all(answers).await?;

        let mut samples = Vec::new();
        for answer in answers {
            let ready = eventually("our watch to tell", SETTLE, async || {
                self.readiness.of(&answer.pod).context("not seen ready")
            })
            .await?;
            samples.push(Sample {
                scale: milliseconds(started, answer.at),
                write: milliseconds(written, answer.at),
                ready: milliseconds(ready, answer.at),
                failures: answer.failures,
            });
        }
        Ok(samples)
    }

    async fn replicas(&self, count: usize) -> Result<()> {
        let deployment = format!("deployment/{}", self.name);
        let count = format!("--replicas={count}");
        self.lab.kubectl_ok(["scale", &deployment, &count]).await?;
        Ok(())
    }

    /// Back to one replica, and nothing left of the others.
    async fn settle(&self) -> Result<BTreeSet<String>> {
        self.replicas(1).await?;
        let pods: Api<Pod> = Api::default_namespaced(self.lab.client().await?);
        let mine = ListParams::default().labels(&format!("app={}", self.name));
        let left = eventually("one replica, ready", SETTLE, async || {
            let found = pods.list(&mine).await.map_err(|e| e.to_string())?;
            let names: BTreeSet<String> = found
                .items
                .iter()
                .filter_map(|pod| pod.metadata.name.clone())
                .collect();
            let ready = names.iter().all(|pod| self.readiness.of(pod).is_some());
            if names.len() == 1 && ready {
                return Ok(names);
            }
            Err(format!("{names:?}"))
        })
        .await;
        Ok(left?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_ready_unless_its_endpoint_says_otherwise() {
        let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
            "addressType": "IPv4",
            "metadata": {},
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": true }, "targetRef": { "name": "a" } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false }, "targetRef": { "name": "b" } },
                { "addresses": ["10.0.0.3"], "targetRef": { "name": "c" } },
                { "addresses": ["10.0.0.4"], "conditions": { "ready": true } },
            ],
        }))
        .unwrap();
        let pods: Vec<String> = ready_pods(&slice).collect();
        assert_eq!(pods, ["a", "c"]);
    }
}
