//! Kubernetes Events: the agent's voice in `kubectl describe pod`.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

/// Events waiting to be sent; more than that are dropped, never waited for.
const QUEUE: usize = 256;

/// Events remembered so that a repetition counts up instead of adding another.
const REMEMBERED: usize = 1024;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Severity of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Normal,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Note {
    namespace: String,
    uid: String,
    kind: Kind,
    reason: &'static str,
    message: String,
}

/// Hands Events to a task that sends them. Losing one is no error: Events are best effort.
#[derive(Debug, Clone)]
pub struct Recorder {
    notes: mpsc::Sender<(Note, ObjectReference)>,
}

impl Recorder {
    /// Starts the sending task.
    pub fn start(client: Client, node_name: String) -> Self {
        let (notes, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(send_all(client, node_name, receiver));
        Self { notes }
    }

    /// Records something about a Pod.
    pub fn pod(&self, pod: &Pod, kind: Kind, reason: &'static str, message: impl Into<String>) {
        let message = message.into();
        debug!(pod = pod.metadata.name, reason, message, "event");
        let note = Note {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            kind,
            reason,
            message,
        };
        // A full queue means an API that does not answer; the log has the line.
        let _ = self.notes.try_send((note, pod.object_ref(&())));
    }
}

struct Sent {
    name: String,
    count: i32,
}

async fn send_all(
    client: Client,
    node_name: String,
    mut notes: mpsc::Receiver<(Note, ObjectReference)>,
) {
    let mut sent: HashMap<Note, Sent> = HashMap::new();
    while let Some((note, object)) = notes.recv().await {
        let api: Api<Event> = Api::namespaced(client.clone(), &note.namespace);
        let now = Timestamp::now();
        let done = match sent.get_mut(&note) {
            Some(earlier) => {
                earlier.count += 1;
                let patch = json!({"count": earlier.count, "lastTimestamp": Time(now)});
                let params = PatchParams::default();
                let patch = Patch::Merge(&patch);
                timed(api.patch(&earlier.name, &params, &patch)).await
            }
            None => {
                let event = event(&note, object, &node_name, now);
                let name = event.metadata.name.clone().unwrap_or_default();
                let done = timed(api.create(&PostParams::default(), &event)).await;
                if sent.len() >= REMEMBERED {
                    sent.clear();
                }
                if done.is_ok() {
                    sent.insert(note.clone(), Sent { name, count: 1 });
                }
                done
            }
        };
        if let Err(error) = done {
            debug!("event {:?} was not recorded: {error}", note.reason);
            sent.remove(&note);
        }
    }
}

async fn timed<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(result) => result.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err("the API did not answer".to_owned()),
    }
}

fn event(note: &Note, object: ObjectReference, node_name: &str, now: Timestamp) -> Event {
    let suffix = Uuid::new_v4().simple().to_string();
    let name = object.name.as_deref().unwrap_or("pod");
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{}", &suffix[..16])),
            namespace: Some(note.namespace.clone()),
            ..ObjectMeta::default()
        },
        type_: Some(match note.kind {
            Kind::Normal => "Normal".to_owned(),
            Kind::Warning => "Warning".to_owned(),
        }),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node_name.to_owned()),
        }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        involved_object: object,
        ..Event::default()
    }
}
