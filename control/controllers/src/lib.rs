//! The controllers of the bundled control plane.
//!
//! Each controller is a pure function from the image of the cluster to a [`plan::Plan`]; one driver, [`run`](mod@run),
//! feeds them all from watches and carries their plans out. They meet the API server through a [`kube::Client`]
//! only, so they work the same inside the server's process and against any other server.
//!
//! Reading order: [`object`] → [`state`] → [`plan`] → [`run`](mod@run), then any controller.

mod config;
mod events;
mod execute;
mod names;
mod object;
mod owner;
mod plan;
mod pods;
mod queue;
mod run;
mod selector;
mod state;

mod deployment;
mod endpointslice;
mod gc;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod replicaset;
mod scheduler;

#[cfg(test)]
mod fixture;

pub use config::ControllersConfig;

use plan::Controller;
use tokio_util::sync::CancellationToken;

/// Runs every controller until `shutdown` is cancelled. One set at a time may run against a cluster.
pub async fn run(client: kube::Client, config: ControllersConfig, shutdown: CancellationToken) {
    let controllers: Vec<Box<dyn Controller>> = vec![
        Box::new(namespace::Namespaces::new(&config)),
        Box::new(node_ipam::NodeIpam::new(&config)),
        Box::new(node_lifecycle::NodeLifecycle::new(&config)),
        Box::new(endpointslice::EndpointSlices::default()),
        Box::new(deployment::Deployments),
        Box::new(replicaset::ReplicaSets::default()),
        Box::new(scheduler::Scheduler),
        Box::new(gc::GarbageCollector),
        Box::new(pod_gc::OrphanedPods::new(&config)),
    ];
    run::run(client, controllers, shutdown).await;
}
