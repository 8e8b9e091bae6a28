//! Nodes that come, go silent, and come back.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Api;
use kube::api::DeleteParams;
use seaway_controllers::ControllersConfig;
use serde_json::json;

use super::cluster::{Cluster, eventually};
use super::workloads::{deployment, ready_addresses, rolled_out, service};

/// Seconds instead of minutes.
fn quick() -> ControllersConfig {
    ControllersConfig {
        node_grace: Duration::from_millis(800),
        node_check: Duration::from_millis(100),
        eviction_after: Duration::from_millis(500),
        eviction_pause: Duration::from_millis(100),
        orphaned_pod_grace: Duration::from_millis(200),
        ..ControllersConfig::default()
    }
}

async fn two_nodes() -> Cluster {
    let cluster = Cluster::with(quick()).await;
    cluster.add_node("n1").await;
    cluster.add_node("n2").await;
    cluster.create::<Service>("default", service("web")).await;
    cluster
        .create::<Deployment>("default", deployment("web", 2, "a"))
        .await;
    rolled_out(&cluster, "web", 2).await;
    eventually("two endpoints", async || {
        (ready_addresses(&cluster, "web").await.len() == 2).then_some(())
    })
    .await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gets_a_range_of_its_own_and_gives_it_back() {
    let config = ControllersConfig {
        cluster_cidrs: vec!["10.0.0.0/23".parse().unwrap()],
        ..ControllersConfig::default()
    };
    let cluster = Cluster::with(config).await;
    cluster.add_node("n1").await;
    cluster.add_node("n2").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let cidr = async |name: &str| nodes.get(name).await.unwrap().spec.and_then(|s| s.pod_cidr);
    let first = cidr("n1").await.unwrap();
    let both: BTreeSet<String> = [first.clone(), cidr("n2").await.unwrap()].into();
    assert_eq!(
        both,
        ["10.0.0.0/24".to_owned(), "10.0.1.0/24".to_owned()].into()
    );

    cluster
        .create_cluster_scoped::<Node>(json!({"metadata": {"name": "n3"}}))
        .await;
    eventually("the lack is told", async || {
        let events = cluster
            .list::<k8s_openapi::api::core::v1::Event>("default")
            .await;
        events
            .iter()
            .find(|e| e.reason.as_deref() == Some("CIDRNotAvailable"))
            .map(|_| ())
    })
    .await;
    cluster.kill_node("n1");
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    let third = eventually("n3 gets the range of n1", async || cidr("n3").await).await;
    assert_eq!(third, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_loses_its_traffic_and_then_its_pods() {
    let cluster = two_nodes().await;
    cluster.kill_node("n2");
    eventually("its endpoint is not ready", async || {
        (ready_addresses(&cluster, "web").await.len() == 1).then_some(())
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually("marked", async || {
        let node = nodes.get("n2").await.unwrap();
        let ready = node
            .status?
            .conditions?
            .into_iter()
            .find(|c| c.type_ == "Ready")?;
        let taints = node.spec?.taints?;
        let effects: BTreeSet<&str> = taints
            .iter()
            .filter(|t| t.key == "node.kubernetes.io/unreachable")
            .map(|t| t.effect.as_str())
            .collect();
        (ready.status == "Unknown" && effects.len() == 2).then_some(())
    })
    .await;
    eventually("replaced on n1", async || {
        let pods = cluster.pods("default").await;
        (pods.len() == 2 && pods.values().all(|n| n.as_deref() == Some("n1"))).then_some(())
    })
    .await;
    eventually("two endpoints again", async || {
        (ready_addresses(&cluster, "web").await.len() == 2).then_some(())
    })
    .await;

    cluster.revive_node("n2");
    eventually("well again", async || {
        let node = nodes.get("n2").await.unwrap();
        node.spec
            .and_then(|s| s.taints)
            .unwrap_or_default()
            .is_empty()
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_evicted_when_all_nodes_look_dead() {
    let cluster = two_nodes().await;
    let before = cluster.pods("default").await;
    cluster.kill_node("n1");
    cluster.kill_node("n2");
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually("both marked", async || {
        let lost = nodes.list(&kube::api::ListParams::default()).await.unwrap();
        lost.iter()
            .all(|n| {
                n.spec
                    .as_ref()
                    .and_then(|s| s.taints.as_ref())
                    .is_some_and(|t| t.len() == 2)
            })
            .then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(cluster.pods("default").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_deleted_node_are_removed() {
    let cluster = two_nodes().await;
    cluster.kill_node("n2");
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.delete("n2", &DeleteParams::default()).await.unwrap();
    eventually("no Pod is left there", async || {
        let pods = cluster.list::<Pod>("default").await;
        let there = |pod: &&Pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("n2");
        let on_n1 = pods.iter().filter(|p| !there(p)).count();
        (pods.iter().filter(there).count() == 0 && on_n1 == 2).then_some(())
    })
    .await;
}
