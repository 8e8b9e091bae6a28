//! Deployments, ReplicaSets, scheduling, EndpointSlices.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::{Cluster, eventually};

pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main", "image": image,
                    "ports": [{"name": "http", "containerPort": 8080}],
                }]},
            },
        },
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
    })
}

/// Waits until a Deployment says that it is rolled out, as `kubectl rollout status` judges it.
pub(crate) async fn rolled_out(cluster: &Cluster, name: &str, replicas: i32) -> Deployment {
    eventually(&format!("{name} rolled out"), async || {
        let found: Deployment = cluster.api("default").get(name).await.unwrap();
        let status = found.status.clone()?;
        let count = |n: Option<i32>| n.unwrap_or(0) == replicas;
        let done = status.observed_generation >= found.metadata.generation
            && count(status.replicas)
            && count(status.updated_replicas)
            && count(status.available_replicas)
            && status.conditions?.iter().any(|c| {
                c.type_ == "Progressing" && c.reason.as_deref() == Some("NewReplicaSetAvailable")
            });
        done.then_some(found)
    })
    .await
}

/// Addresses that are ready, over all slices of a Service.
pub(crate) async fn ready_addresses(cluster: &Cluster, service: &str) -> BTreeSet<String> {
    let slices = cluster.list::<EndpointSlice>("default").await;
    slices
        .iter()
        .filter(|s| {
            s.metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("kubernetes.io/service-name"))
                .is_some_and(|n| n == service)
        })
        .flat_map(|slice| &slice.endpoints)
        .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
        .flat_map(|e| e.addresses.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_endpoints_on_every_node() {
    let cluster = Cluster::with_nodes(3).await;
    cluster.create::<Service>("default", service("web")).await;
    cluster
        .create::<Deployment>("default", deployment("web", 3, "a"))
        .await;
    let deployment = rolled_out(&cluster, "web", 3).await;

    let nodes: BTreeSet<Option<String>> = cluster.pods("default").await.into_values().collect();
    assert_eq!(nodes.len(), 3, "three replicas, three nodes: {nodes:?}");
    let revision = deployment.metadata.annotations.unwrap();
    assert_eq!(revision["deployment.kubernetes.io/revision"], "1");

    eventually("three ready endpoints", async || {
        (ready_addresses(&cluster, "web").await.len() == 3).then_some(())
    })
    .await;
    let slices = cluster.list::<EndpointSlice>("default").await;
    let slices: Vec<_> = slices
        .iter()
        .filter(|s| s.metadata.name.as_ref().unwrap().starts_with("web-"))
        .collect();
    assert_eq!(slices.len(), 1);
    let slice = slices[0];
    assert_eq!(
        slice.ports.as_ref().unwrap()[0].port,
        Some(8080),
        "named target port"
    );
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!(
        labels["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    assert!(
        slice
            .endpoints
            .iter()
            .all(|e| e.node_name.is_some() && e.target_ref.is_some())
    );
    let annotations = slice.metadata.annotations.as_ref().unwrap();
    assert!(annotations.contains_key("endpoints.kubernetes.io/last-change-trigger-time"));

    let events = cluster.list::<Event>("default").await;
    let reasons: BTreeSet<String> = events.into_iter().filter_map(|e| e.reason).collect();
    for reason in ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"] {
        assert!(reasons.contains(reason), "{reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_reaches_the_slice_within_milliseconds() {
    let cluster = Cluster::with_nodes(1).await;
    cluster.create::<Service>("default", service("web")).await;
    cluster
        .create::<Deployment>("default", deployment("web", 1, "a"))
        .await;
    rolled_out(&cluster, "web", 1).await;
    eventually("one endpoint", async || {
        (ready_addresses(&cluster, "web").await.len() == 1).then_some(())
    })
    .await;
    let pod = cluster.pods("default").await.into_keys().next().unwrap();
    // From here on the test speaks for the agent.
    cluster.kill_node("n1");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let pods = cluster.api::<Pod>("default");
    let mut worst = Duration::ZERO;
    for round in 0..10 {
        let ready = round % 2 == 1;
        let word = if ready { "True" } else { "False" };
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": word}]}});
        let patch = Patch::Merge(status);
        pods.patch_status(&pod, &PatchParams::default(), &patch)
            .await
            .unwrap();
        let start = Instant::now();
        eventually("the slice follows", async || {
            (ready_addresses(&cluster, "web").await.len() == usize::from(ready)).then_some(())
        })
        .await;
        worst = worst.max(start.elapsed());
    }
    println!("slowest: {worst:?}");
    assert!(worst < Duration::from_millis(500), "{worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_down_removes_endpoints_and_never_overshoots() {
    let cluster = Cluster::with_nodes(3).await;
    cluster.create::<Service>("default", service("web")).await;
    cluster
        .create::<Deployment>("default", deployment("web", 4, "a"))
        .await;
    rolled_out(&cluster, "web", 4).await;
    assert_eq!(cluster.pods("default").await.len(), 4);
    // Two of the four share a node, and only one of these may go.
    for replicas in [3, 2] {
        let scale = json!({"spec": {"replicas": replicas}});
        cluster.patch::<Deployment>("default", "web", scale).await;
        rolled_out(&cluster, "web", replicas).await;
        eventually("fewer endpoints", async || {
            let ready = ready_addresses(&cluster, "web").await.len();
            (i32::try_from(ready) == Ok(replicas)).then_some(())
        })
        .await;
        let pods = cluster.pods("default").await;
        let nodes: BTreeSet<_> = pods.values().collect();
        assert_eq!(nodes.len(), pods.len(), "doubled Pods go first: {pods:?}");
    }
    // Created: four, and not one more.
    let sets = cluster.list::<ReplicaSet>("default").await;
    assert_eq!(sets.len(), 1);
    let events = cluster.list::<Event>("default").await;
    let created = events
        .iter()
        .filter(|e| e.reason.as_deref() == Some("SuccessfulCreate"))
        .count();
    assert_eq!(created, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_keeps_enough_pods_available() {
    let cluster = Cluster::with_nodes(2).await;
    cluster
        .create::<Deployment>("default", deployment("web", 4, "a"))
        .await;
    rolled_out(&cluster, "web", 4).await;
    let image = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "b", "ports": [{"name": "http", "containerPort": 8080}]}]}}}});
    cluster.patch::<Deployment>("default", "web", image).await;
    let mut least = 4;
    let mut most = 0;
    eventually("rolled to b", async || {
        let sets = cluster.list::<ReplicaSet>("default").await;
        let status = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
        let available: i32 = sets
            .iter()
            .map(|s| status(s).available_replicas.unwrap_or(0))
            .sum();
        let asked: i32 = sets
            .iter()
            .map(|s| s.spec.as_ref().unwrap().replicas.unwrap())
            .sum();
        least = least.min(available);
        most = most.max(asked);
        let new = sets.iter().find(|s| {
            s.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"] == "2"
        })?;
        (status(new).available_replicas == Some(4) && asked == 4).then_some(())
    })
    .await;
    rolled_out(&cluster, "web", 4).await;
    // 25 % of four: one less available, one more in all.
    assert!(
        least >= 3 && most <= 5,
        "available {least}, asked for {most}"
    );

    // Back again: the first ReplicaSet is taken up under a new number.
    let image = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "a", "ports": [{"name": "http", "containerPort": 8080}]}]}}}});
    cluster.patch::<Deployment>("default", "web", image).await;
    eventually("revision 3", async || {
        let web: Deployment = cluster.api("default").get("web").await.unwrap();
        let revision = &web.metadata.annotations?["deployment.kubernetes.io/revision"];
        (revision == "3").then_some(())
    })
    .await;
    rolled_out(&cluster, "web", 4).await;
    assert_eq!(cluster.list::<ReplicaSet>("default").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_never_runs_two_versions() {
    let cluster = Cluster::with_nodes(1).await;
    let mut web = deployment("web", 2, "a");
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create::<Deployment>("default", web).await;
    rolled_out(&cluster, "web", 2).await;
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "b"}]}}}});
    cluster.patch::<Deployment>("default", "web", image).await;
    eventually("b alone", async || {
        let pods = cluster.list::<Pod>("default").await;
        let images: BTreeSet<String> = pods
            .iter()
            .map(|p| {
                p.spec.as_ref().unwrap().containers[0]
                    .image
                    .clone()
                    .unwrap()
            })
            .collect();
        assert!(images.len() <= 1, "{images:?}");
        (images.contains("b") && pods.len() == 2).then_some(())
    })
    .await;
    rolled_out(&cluster, "web", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_is_taken_up_later() {
    let cluster = Cluster::with_nodes(1).await;
    cluster
        .create::<Pod>("default", json!({
            "metadata": {"name": "picky"},
            "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "a"}]},
        }))
        .await;
    eventually("the reason", async || {
        let pod: Pod = cluster.api("default").get("picky").await.unwrap();
        let condition = pod
            .status?
            .conditions?
            .into_iter()
            .find(|c| c.type_ == "PodScheduled")?;
        (condition.message?
            == "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
            .then_some(())
    })
    .await;
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"disk": "ssd"}}}));
    nodes
        .patch("n1", &PatchParams::default(), &label)
        .await
        .unwrap();
    eventually("bound", async || {
        cluster.pods("default").await["picky"].clone()
    })
    .await;
}
