//! The Node object: registered, kept true, and its Lease kept fresh.

mod facts;
mod lease;
mod object;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tracing::{debug, info, warn};

pub use facts::{Machine, boot_id};
pub use lease::keep_lease;
pub use object::{Identity, Readiness};

use crate::sandbox::Sandboxes;

/// How often the network's readiness is looked at: a node should be Ready soon after its overlay is.
const LOOK: Duration = Duration::from_millis(500);

/// How often the object is compared with what it should be, even when nothing changed here: the node lifecycle
/// controller may have declared us dead meanwhile.
const COMPARE: Duration = Duration::from_secs(10);

const TIMEOUT: Duration = Duration::from_secs(10);

/// Registers the Node and keeps it true, for ever.
pub async fn keep_node(
    client: Client,
    identity: Identity,
    machine: Machine,
    sandboxes: Arc<Sandboxes>,
) {
    let api: Api<Node> = Api::all(client);
    let mut reported: Option<Readiness> = None;
    let mut compared = tokio::time::Instant::now();
    let mut delay = LOOK;
    loop {
        let readiness = Readiness::of(sandboxes.network_ready().err().map(|e| e.to_string()));
        if reported.as_ref() != Some(&readiness) || compared.elapsed() >= COMPARE {
            let updated = update(&api, &identity, &machine, &readiness);
            match tokio::time::timeout(TIMEOUT, updated).await {
                Ok(Ok(())) => {
                    if reported.as_ref().is_none_or(|before| *before != readiness) {
                        info!(
                            node = identity.name,
                            ready = readiness.problem.is_none(),
                            "node registered: {readiness}"
                        );
                    }
                    reported = Some(readiness);
                    compared = tokio::time::Instant::now();
                    delay = LOOK;
                }
                Ok(Err(error)) => {
                    warn!(
                        node = identity.name,
                        "cannot register the node, trying again: {error}"
                    );
                    delay = (delay * 2).min(COMPARE);
                }
                Err(_) => {
                    warn!(
                        node = identity.name,
                        "cannot register the node, trying again: the API did not answer"
                    );
                    delay = (delay * 2).min(COMPARE);
                }
            }
        }
        tokio::time::sleep(delay).await;
    }
}

/// Creates the object, or patches what differs: labels that we own, and the status.
async fn update(
    api: &Api<Node>,
    identity: &Identity,
    machine: &Machine,
    readiness: &Readiness,
) -> Result<(), kube::Error> {
    let existing = match api.get_opt(&identity.name).await? {
        Some(node) => node,
        None => {
            let node = object::new_node(identity);
            match api.create(&PostParams::default(), &node).await {
                Ok(node) => node,
                // Somebody was faster; the next round sees it.
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    if let Some(labels) = object::missing_labels(identity, &existing) {
        let patch = json!({"metadata": {"labels": labels}});
        api.patch(
            &identity.name,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await?;
    }
    if let Some(status) =
        object::status_patch(identity, machine, readiness, &existing, Timestamp::now())
    {
        debug!(node = identity.name, "node status differs");
        let patch = json!({"status": status});
        api.patch_status(
            &identity.name,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await?;
    }
    Ok(())
}
