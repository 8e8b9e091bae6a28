//! The node agent: runs Pods as network namespaces with processes, and tells the API about them.
//!
//! It stands where kubelet and a container runtime stand in a real cluster, for clusters that have neither:
//! no images, no mounts, no isolation but the network and a cgroup. [`run`] is the whole of it. It may be killed at
//! any time: Pods go on without it, and its successor takes them over from the [`records`].
//!
//! Reading order: [`pod`] (one Pod: facts, decisions, status, and the task around them) → [`supervisor`] (all
//! Pods) → [`sandbox`] with [`cni`] (networks), [`process`] with [`container`] (programs), [`probe`] → [`node`]
//! (Node object and Lease) → [`server`] with [`logs`].

#![forbid(unsafe_code)]

pub mod cni;
pub mod config;
pub mod container;
pub mod events;
pub mod kubeconfig;
pub mod logs;
pub mod node;
pub mod pod;
pub mod probe;
pub mod process;
pub mod records;
pub mod sandbox;
pub mod server;
pub mod supervisor;

mod agent;

pub use agent::{Error, run};
pub use config::Config;
