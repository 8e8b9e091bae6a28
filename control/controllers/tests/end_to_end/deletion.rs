//! Namespaces and garbage.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::json;

use super::cluster::{Cluster, eventually};
use super::workloads::{deployment, rolled_out, service};

fn propagate(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams {
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_filled_and_emptied() {
    let cluster = Cluster::with_nodes(1).await;
    let namespace = json!({"metadata": {"name": "shop"}});
    cluster.create_cluster_scoped::<Namespace>(namespace).await;
    eventually("its account and CA", async || {
        let accounts = cluster.api::<ServiceAccount>("shop");
        accounts.get_opt("default").await.unwrap()?;
        let maps = cluster.api::<ConfigMap>("shop");
        let ca = maps.get_opt("kube-root-ca.crt").await.unwrap()?.data?;
        ca["ca.crt"].contains("BEGIN CERTIFICATE").then_some(())
    })
    .await;
    cluster
        .create::<Deployment>("shop", deployment("web", 2, "a"))
        .await;
    cluster.create::<Service>("shop", service("web")).await;
    eventually("two pods", async || {
        (cluster.pods("shop").await.len() == 2).then_some(())
    })
    .await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    eventually("gone", async || {
        namespaces
            .get_opt("shop")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    assert!(cluster.list::<Pod>("shop").await.is_empty());
    assert!(cluster.list::<Service>("shop").await.is_empty());
    assert!(cluster.list::<ConfigMap>("shop").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_deletion_takes_everything_along() {
    let cluster = Cluster::with_nodes(2).await;
    cluster
        .create::<Deployment>("default", deployment("web", 2, "a"))
        .await;
    cluster.create::<Service>("default", service("web")).await;
    rolled_out(&cluster, "web", 2).await;
    let deployments = cluster.api::<Deployment>("default");
    deployments
        .delete("web", &propagate(PropagationPolicy::Background))
        .await
        .unwrap();
    eventually("all gone", async || {
        let sets = cluster.list::<ReplicaSet>("default").await;
        let pods = cluster.list::<Pod>("default").await;
        (sets.is_empty() && pods.is_empty()).then_some(())
    })
    .await;
    let services = cluster.api::<Service>("default");
    services
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("its slices gone", async || {
        let slices = cluster.list::<EndpointSlice>("default").await;
        let left = slices
            .iter()
            .filter(|s| s.metadata.name.as_ref().unwrap().starts_with("web-"));
        (left.count() == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_keeps_the_owner_until_the_end() {
    let cluster = Cluster::with_nodes(1).await;
    cluster
        .create::<Deployment>("default", deployment("web", 1, "a"))
        .await;
    rolled_out(&cluster, "web", 1).await;
    let deployments = cluster.api::<Deployment>("default");
    deployments
        .delete("web", &propagate(PropagationPolicy::Foreground))
        .await
        .unwrap();
    eventually("gone, last of all", async || {
        let owner = deployments.get_opt("web").await.unwrap();
        let pods = cluster.list::<Pod>("default").await;
        assert!(
            owner.is_some() || pods.is_empty(),
            "the owner went before its Pods"
        );
        owner.is_none().then_some(())
    })
    .await;
    assert!(cluster.list::<ReplicaSet>("default").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_adopted_again() {
    let cluster = Cluster::with_nodes(1).await;
    cluster
        .create::<Deployment>("default", deployment("web", 1, "a"))
        .await;
    rolled_out(&cluster, "web", 1).await;
    let before = cluster.pods("default").await;
    let deployments = cluster.api::<Deployment>("default");
    deployments
        .delete("web", &propagate(PropagationPolicy::Orphan))
        .await
        .unwrap();
    eventually("the owner gone", async || {
        deployments
            .get_opt("web")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    let sets = cluster.list::<ReplicaSet>("default").await;
    assert_eq!(sets.len(), 1);
    assert!(
        sets[0]
            .metadata
            .owner_references
            .clone()
            .unwrap_or_default()
            .is_empty()
    );
    cluster
        .create::<Deployment>("default", deployment("web", 1, "a"))
        .await;
    rolled_out(&cluster, "web", 1).await;
    assert_eq!(
        cluster.pods("default").await,
        before,
        "the same Pod goes on"
    );
    assert_eq!(cluster.list::<ReplicaSet>("default").await.len(), 1);
}
