//! Telling the API: status patches that never hold the Pod up, and the final deletion.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::super::facts::Facts;
use super::super::status::{Input, status};
use super::super::view::View;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the newest status of one Pod; older ones that were not sent yet are skipped.
#[derive(Debug)]
pub(super) struct Reporter {
    api: Api<Pod>,
    name: String,
    uid: String,
    wanted: watch::Sender<Option<Value>>,
}

impl Reporter {
    pub(super) fn start(client: Client, pod: &Pod) -> Self {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Pod> = Api::namespaced(client, namespace);
        let name = pod.metadata.name.clone().unwrap_or_default();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (wanted, receiver) = watch::channel(None);
        tokio::spawn(send(api.clone(), name.clone(), uid.clone(), receiver));
        Self {
            api,
            name,
            uid,
            wanted,
        }
    }

    /// Reports the status that follows from `facts`, if it is another than the last.
    pub(super) fn report(&self, pod: &Pod, view: &View, facts: &Facts, node_ips: &[IpAddr]) {
        self.wanted.send_if_modified(|wanted| {
            let next = status(&Input {
                pod,
                view,
                facts,
                node_ips,
                sent: wanted.as_ref(),
                now: Timestamp::now(),
            });
            let changed = wanted.as_ref() != Some(&next);
            *wanted = Some(next);
            changed
        });
    }

    /// Deletes the object for good, after a last try to tell how its containers ended. It is fine if it is gone, or if
    /// another Pod has its name.
    pub(super) async fn delete(&self) -> Result<(), String> {
        let last = self.wanted.borrow().clone();
        if let Some(status) = last
            && let Err(error) = patch(&self.api, &self.name, &self.uid, &status).await
        {
            debug!(
                "the last status of pod {} was not recorded: {error}",
                self.name
            );
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        match tokio::time::timeout(TIMEOUT, self.api.delete(&self.name, &params)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if is_gone(&error) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API did not answer".to_owned()),
        }
    }
}

async fn send(
    api: Api<Pod>,
    name: String,
    uid: String,
    mut wanted: watch::Receiver<Option<Value>>,
) {
    while wanted.changed().await.is_ok() {
        let mut delay = Duration::from_millis(200);
        loop {
            let Some(status) = wanted.borrow_and_update().clone() else {
                break;
            };
            match patch(&api, &name, &uid, &status).await {
                Ok(()) => break,
                Err(error) => {
                    warn!(pod = name, "status not recorded, trying again: {error}");
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        changed = wanted.changed() => if changed.is_err() { return },
                    }
                    delay = (delay * 2).min(Duration::from_secs(10));
                }
            }
        }
    }
}

/// The uid makes sure that a new Pod of the same name is left alone.
async fn patch(api: &Api<Pod>, name: &str, uid: &str, status: &Value) -> Result<(), String> {
    let body = json!({"metadata": {"uid": uid}, "status": status});
    let patch = Patch::Merge(&body);
    let params = PatchParams::default();
    match tokio::time::timeout(TIMEOUT, api.patch_status(name, &params, &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if is_gone(&error) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API did not answer".to_owned()),
    }
}

/// Not there, or another object of that name (uid mismatch is 409, or 422 where a patch would change the uid).
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409
        || status.code == 422 && status.message.contains("uid"))
}
