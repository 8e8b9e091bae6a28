//! What the controllers need to know besides the cluster itself.

use std::time::Duration;

use ipnetwork::IpNetwork;

/// Settings of all controllers.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Ranges from which nodes get their pod CIDRs, at most one of each family. Empty: none are handed out.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Prefix length of a node's IPv4 pod CIDR.
    pub node_mask_v4: u8,
    /// Prefix length of a node's IPv6 pod CIDR.
    pub node_mask_v6: u8,
    /// PEM of the cluster CA, published as ConfigMap `kube-root-ca.crt` in every namespace.
    pub ca_pem: String,
    /// How long a node may be silent before it counts as lost.
    pub node_grace: Duration,
    /// How often silence is looked for.
    pub node_check: Duration,
    /// How long Pods without a toleration of their own stay on a lost node.
    pub eviction_after: Duration,
    /// Pause between the evictions of two nodes, so that a fault of the network does not empty the cluster.
    pub eviction_pause: Duration,
    /// How long a Pod may be bound to a node that does not exist before it is removed.
    pub orphaned_pod_grace: Duration,
}

impl Default for ControllersConfig {
    /// The defaults of Kubernetes' controller manager (`--node-monitor-grace-period`, `--node-monitor-period`,
    /// `--node-eviction-rate`, default tolerations of 300 s).
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_mask_v4: 24,
            node_mask_v6: 64,
            ca_pem: String::new(),
            node_grace: Duration::from_secs(50),
            node_check: Duration::from_secs(5),
            eviction_after: Duration::from_secs(300),
            eviction_pause: Duration::from_secs(10),
            orphaned_pod_grace: Duration::from_secs(40),
        }
    }
}
