//! What an agent is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Settings of one node's agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connection to the API, and the certificate that the log endpoint serves with.
    pub kubeconfig: PathBuf,
    pub node_name: String,
    /// Reported as InternalIP; at most one per family, the first is the primary.
    pub node_ips: Vec<IpAddr>,
    /// Pods go below `<cgroup_root>/pods`.
    pub cgroup_root: PathBuf,
    pub cni_conf_dir: PathBuf,
    pub cni_bin_dir: PathBuf,
    /// Holds the lock that keeps a second agent away.
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    /// Start of the names of pods' namespaces in `/run/netns`.
    pub netns_prefix: String,
    /// The log endpoint.
    pub bind_address: SocketAddr,
    /// The executable behind the built-in images.
    pub program: PathBuf,
}
