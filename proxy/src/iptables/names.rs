//! Names of our chains. All begin with the prefix of [`seaway_model::ownership`]; none is longer than the kernel's 28.

use std::sync::Arc;

use data_encoding::BASE32;
use seaway_model::{ObjectKey, PortRule, Protocol};
use sha2::{Digest, Sha256};

use super::rule::ChainName;

/// Entry of PREROUTING and OUTPUT in nat: the root of the dispatch tree.
pub const SERVICES: &str = "SEAWAY-SERVICES";

/// Where packets for an address of the node are dispatched by port.
pub const NODE_PORTS: &str = "SEAWAY-NODEPORTS";

/// Entry of POSTROUTING in nat.
pub const POSTROUTING: &str = "SEAWAY-POSTROUTING";

/// Marks what does not come from a pod; exists where there is more than one pod range.
pub const NOT_FROM_POD: &str = "SEAWAY-NOT-FROM-POD";

/// Of the names of the chains below [`SERVICES`]: the lowest four bits of an address, then the next four.
pub const SERVICES_BELOW: &str = "SEAWAY-SVCS";

/// Entry of the cluster IPs in filter, for the ports that no Service has there.
pub const CLUSTER_IPS: &str = "SEAWAY-CLUSTER-IPS";

/// Of the names of the chains below [`CLUSTER_IPS`].
pub const CLUSTER_IPS_BELOW: &str = "SEAWAY-CIPS";

/// Has the filter table reject: nothing can serve the frontend.
pub const REJECT: &str = "SEAWAY-REJECT";

/// Has the filter table drop: nothing that the policy allows, or a source that it does not allow.
pub const DROP: &str = "SEAWAY-DROP";

/// Refuses what asks a cluster IP for a port that no Service has there.
pub const UNKNOWN_PORT: &str = "SEAWAY-UNKNOWN-PORT";

/// No packet comes by: while it is there, connection tracking goes on translating flows that began with rules which are gone.
pub const KEEP_FLOWS: &str = "SEAWAY-KEEP-FLOWS";

/// There for a moment at start, with a rule of each kind.
pub const PROBE: &str = "SEAWAY-PROBE";

/// Entry of INPUT and OUTPUT in filter: refuses and drops what nat has marked so.
pub const FILTER: &str = "SEAWAY-FILTER";

/// Entry of FORWARD in filter.
pub const FORWARD: &str = "SEAWAY-FORWARD";

/// Length of the hash in a name; 80 bits, as kube-proxy's.
const HASH_CHARS: usize = 16;

/// What a chain of a Service port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Any usable endpoint.
    Cluster,
    /// Endpoints of this node only.
    Local,
    /// Entry from node ports, external and load balancer addresses.
    External,
    /// `loadBalancerSourceRanges`, in front of [`Role::External`].
    Firewall,
}

impl Role {
    fn prefix(self) -> &'static str {
        match self {
            Self::Cluster => "SEAWAY-SVC-",
            Self::Local => "SEAWAY-LOC-",
            Self::External => "SEAWAY-EXT-",
            Self::Firewall => "SEAWAY-FW-",
        }
    }
}

/// One port of one Service as people name it: `namespace/name:port/protocol`.
pub fn owner(key: &ObjectKey, rule: &PortRule) -> String {
    let separator = if rule.port_name.is_empty() { "" } else { ":" };
    format!("{key}{separator}{}/{}", rule.port_name, rule.protocol)
}

/// The chain of an owner in this role.
pub fn service_chain(role: Role, owner: &str) -> ChainName {
    ChainName::new(format!("{}{}", role.prefix(), hash(owner.as_bytes())))
}

/// The list on which the clients of one endpoint are remembered (`/proc/net/xt_recent/NAME`).
pub fn affinity_list(owner: &str, endpoint: &str) -> Arc<str> {
    format!("SEAWAY-{}", hash(format!("{owner} {endpoint}").as_bytes())).into()
}

/// Below [`NODE_PORTS`]: a range of ports of one protocol.
pub fn port_bucket(protocol: Protocol, first: u16) -> ChainName {
    let protocol = protocol.as_str().to_ascii_uppercase();
    ChainName::new(format!("SEAWAY-NPS-{protocol}-{first}"))
}

fn hash(bytes: &[u8]) -> String {
    let mut text = BASE32.encode(&Sha256::digest(bytes));
    text.truncate(HASH_CHARS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_are_ours() {
        let owner = "a-long-namespace/a-long-name:a-long-port/sctp";
        let names = [
            service_chain(Role::Cluster, owner),
            service_chain(Role::Local, owner),
            service_chain(Role::External, owner),
            service_chain(Role::Firewall, owner),
            ChainName::new(format!("{CLUSTER_IPS_BELOW}-FF")),
            ChainName::new(CLUSTER_IPS),
            port_bucket(Protocol::Sctp, 65_408),
            ChainName::new(SERVICES),
            ChainName::new(NODE_PORTS),
            ChainName::new(POSTROUTING),
            ChainName::new(NOT_FROM_POD),
        ];
        for name in names {
            assert!(name.as_str().len() <= 28, "{name}");
            assert!(name.is_ours(), "{name}");
        }
        assert!(!ChainName::new("SEAWAY-EGRESS").is_ours());
        assert!(!ChainName::new("SEAWAY-POD-FORWARD").is_ours());
        assert!(!ChainName::new("KUBE-SERVICES").is_ours());
    }
}
