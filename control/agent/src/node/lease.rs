//! The Node's Lease in `kube-node-lease`: the heartbeat that the node lifecycle controller watches (KEP-589).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tracing::warn;

const NAMESPACE: &str = "kube-node-lease";

/// kubelet's `nodeLeaseDurationSeconds`.
const DURATION_SECONDS: i32 = 40;

/// A quarter of the duration, as kubelet renews.
const RENEW: Duration = Duration::from_secs(10);

/// An attempt that takes longer is given up: the next is due.
const TIMEOUT: Duration = Duration::from_secs(8);

/// While the first Lease cannot be made (the API or its namespace is not up yet), try often.
const RETRY: Duration = Duration::from_secs(1);

/// Renews the Lease for ever.
pub async fn keep_lease(client: Client, node_name: String) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut ticks = tokio::time::interval(RENEW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Err(error) = renew_in_time(&api, &node_name).await {
            warn!(
                node = node_name,
                "cannot renew the node's lease, trying again: {error}"
            );
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn renew_in_time(api: &Api<Lease>, node_name: &str) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, renew(api, node_name)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the API did not answer".to_owned()),
    }
}

async fn renew(api: &Api<Lease>, node_name: &str) -> Result<(), kube::Error> {
    let spec = spec(node_name, Timestamp::now());
    let patch = json!({ "spec": spec });
    match api
        .patch(node_name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let object = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": node_name, "namespace": NAMESPACE}, "spec": spec,
            });
            let lease: Lease = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn spec(node_name: &str, now: Timestamp) -> Value {
    json!({
        "holderIdentity": node_name,
        "leaseDurationSeconds": DURATION_SECONDS,
        // MicroTime: always six digits.
        "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renew_time_is_a_micro_time() {
        let now: Timestamp = "2026-01-02T03:04:05.1Z".parse().unwrap();
        assert_eq!(spec("n1", now)["renewTime"], "2026-01-02T03:04:05.100000Z");
    }
}
