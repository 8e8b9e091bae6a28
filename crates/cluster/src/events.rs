//! Kubernetes Events: our voice in `kubectl describe` and `kubectl events`.
//!
//! Best effort, and never more than the API should bear: the same finding is told once in a while, and all together
//! at a limited rate.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use seaway_model::ObjectKey;
use tokio::sync::mpsc;
use tracing::debug;

use crate::convert::ObjectRef;
use crate::wire;

/// Events waiting to be sent; more than that are dropped, never waited for.
const QUEUE: usize = 64;
/// How long an API may take over one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The limit of `note` in the API.
const NOTE_BYTES: usize = 1024;
/// Who we are, in the Events.
const CONTROLLER: &str = "seaway-proxy";

/// A finding about an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Finding {
    object: ObjectRef,
    reason: &'static str,
    message: String,
}

/// Records Events, in a task of its own.
#[derive(Debug)]
pub struct EventRecorder {
    findings: mpsc::Sender<Finding>,
    throttle: Throttle,
}

impl EventRecorder {
    /// Starts the sending task; must be called inside a tokio runtime.
    pub fn start(client: Client, node: &str) -> Self {
        let (findings, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(send_all(client, node.to_owned(), receiver));
        Self {
            findings,
            throttle: Throttle::default(),
        }
    }

    /// Records a warning about an object. False if it is dropped: too many at once. One that was told a
    /// short while ago is not told again, and not dropped either.
    pub fn warn(
        &mut self,
        object: ObjectRef,
        reason: &'static str,
        message: String,
        now: Instant,
    ) -> bool {
        let finding = Finding {
            object,
            reason,
            message,
        };
        match self.throttle.admit(&finding, now) {
            Admission::Told => true,
            Admission::TooMany => false,
            Admission::Send => self.findings.try_send(finding).is_ok(),
        }
    }
}

/// What may be sent. Pure: time is an argument.
#[derive(Debug)]
struct Throttle {
    told: HashMap<Finding, Instant>,
    tokens: f64,
    filled: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Send,
    Told,
    TooMany,
}

/// How long a finding is not repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(600);
/// Findings at once.
const BURST: f64 = 25.0;
/// Findings a second, after that.
const PER_SECOND: f64 = 0.2;
/// Findings remembered.
const REMEMBERED: usize = 1024;

impl Default for Throttle {
    fn default() -> Self {
        Self {
            told: HashMap::new(),
            tokens: BURST,
            filled: None,
        }
    }
}

impl Throttle {
    fn admit(&mut self, finding: &Finding, now: Instant) -> Admission {
        let recent = |told: &Instant| now.duration_since(*told) < REPEAT_AFTER;
        if self.told.get(finding).is_some_and(recent) {
            return Admission::Told;
        }
        let passed = self
            .filled
            .map_or(Duration::ZERO, |at| now.duration_since(at));
        self.filled = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * PER_SECOND).min(BURST);
        if self.tokens < 1.0 {
            return Admission::TooMany;
        }
        self.tokens -= 1.0;
        if self.told.len() >= REMEMBERED {
            self.told.retain(|_, told| recent(told));
        }
        self.told.insert(finding.clone(), now);
        Admission::Send
    }
}

async fn send_all(client: Client, node: String, mut findings: mpsc::Receiver<Finding>) {
    while let Some(finding) = findings.recv().await {
        match tokio::time::timeout(TIMEOUT, send(&client, &node, &finding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, object = %finding.object, "an Event was not taken"),
            Err(_) => debug!(object = %finding.object, "the API did not answer about an Event"),
        }
    }
}

async fn send(client: &Client, node: &str, finding: &Finding) -> Result<(), kube::Error> {
    let regarding = match &finding.object {
        ObjectRef::Service(key) => {
            let api = Api::<wire::Service>::namespaced(client.clone(), key.namespace());
            regarding(&api, key).await
        }
        ObjectRef::Slice(key) => {
            let api = Api::<wire::EndpointSlice>::namespaced(client.clone(), key.namespace());
            regarding(&api, key).await
        }
        ObjectRef::Node(_) => {
            let api = Api::<wire::Node>::all(client.clone());
            regarding(&api, &finding.object.key()).await
        }
    };
    let event = event(finding, regarding, node, Timestamp::now());
    let namespace = event.metadata.namespace.as_deref();
    let api: Api<Event> = Api::namespaced(client.clone(), namespace.unwrap_or_default());
    api.create(&PostParams::default(), &event).await.map(drop)
}

/// With the uid, by which `kubectl describe` finds the Events of an object; without it if the object is gone.
async fn regarding<K>(api: &Api<K>, key: &ObjectKey) -> ObjectReference
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let uid = match api.get_metadata(key.name()).await {
        Ok(object) => object.metadata.uid,
        Err(_) => None,
    };
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: Some(key.namespace().to_owned()).filter(|namespace| !namespace.is_empty()),
        name: Some(key.name().to_owned()),
        uid,
        ..ObjectReference::default()
    }
}

fn event(finding: &Finding, regarding: ObjectReference, node: &str, now: Timestamp) -> Event {
    let name = regarding.name.as_deref().unwrap_or_default();
    let mut note = finding.message.clone();
    let end = (0..=NOTE_BYTES.min(note.len()))
        .rev()
        .find(|end| note.is_char_boundary(*end));
    note.truncate(end.unwrap_or_default());
    Event {
        metadata: ObjectMeta {
            // As client-go names them.
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            // The Events of what has no namespace are in this one (client-go, `events.eventRecorderImpl`).
            namespace: Some(regarding.namespace.clone().unwrap_or("default".to_owned())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some("Warning".to_owned()),
        reason: Some(finding.reason.to_owned()),
        action: Some("Program".to_owned()),
        note: Some(note),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_owned()),
        regarding: Some(regarding),
        ..Event::default()
    }
}
