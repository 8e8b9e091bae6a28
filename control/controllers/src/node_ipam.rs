//! Pod CIDRs for nodes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::config::ControllersConfig;
use crate::object::{Kind, ObjRef, Object};
use crate::plan::{Clock, Controller, EventDraft, Plan};
use crate::state::{Change, State};

/// The node IPAM controller. What is taken is read from the Nodes each time, so there is no second truth that a
/// restart or a deleted Node could leave wrong.
pub(crate) struct NodeIpam {
    pools: Vec<Pool>,
}

/// One cluster CIDR, cut into blocks of equal size.
#[derive(Debug, Clone, Copy)]
struct Pool {
    range: IpNetwork,
    mask: u8,
}

impl Pool {
    /// Number of blocks; capped, as nobody has that many nodes.
    fn blocks(self) -> u128 {
        let bits = self.mask.saturating_sub(self.range.prefix());
        1_u128 << bits.min(64)
    }

    fn block(self, index: u128) -> Option<IpNetwork> {
        let address = match self.range.network() {
            IpAddr::V4(base) => {
                let size = u32::from(32 - self.mask);
                let offset = u32::try_from(index.checked_shl(size)?).ok()?;
                IpAddr::V4(u32::from(base).checked_add(offset)?.into())
            }
            IpAddr::V6(base) => {
                let size = u32::from(128 - self.mask);
                let offset = index.checked_shl(size)?;
                IpAddr::V6(u128::from(base).checked_add(offset)?.into())
            }
        };
        IpNetwork::new(address, self.mask).ok()
    }

    /// The index range of the blocks that a CIDR covers, wholly or in part.
    fn covered(self, cidr: IpNetwork) -> Option<(u128, u128)> {
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        if cidr.is_ipv4() != self.range.is_ipv4() {
            return None;
        }
        let size = if cidr.is_ipv4() { 32 } else { 128 } - u32::from(self.mask);
        let base = number(self.range.network());
        let first = number(cidr.network()).max(base);
        let last = number(cidr.broadcast()).min(number(self.range.broadcast()));
        (first <= last).then(|| {
            let index = |n: u128| n.saturating_sub(base).checked_shr(size).unwrap_or(0);
            (index(first), index(last))
        })
    }

    /// The lowest block that no CIDR of `taken` touches.
    fn free(self, taken: &[IpNetwork]) -> Option<IpNetwork> {
        let mut covered: Vec<(u128, u128)> =
            taken.iter().filter_map(|c| self.covered(*c)).collect();
        covered.sort_unstable();
        let mut next = 0;
        for (first, last) in covered {
            if next < first {
                break;
            }
            next = next.max(last + 1);
        }
        (next < self.blocks()).then(|| self.block(next)).flatten()
    }
}

impl NodeIpam {
    pub(crate) fn new(config: &ControllersConfig) -> Self {
        let pool = |range: &IpNetwork| Pool {
            range: *range,
            mask: if range.is_ipv4() {
                config.node_mask_v4
            } else {
                config.node_mask_v6
            },
        };
        Self {
            pools: config.cluster_cidrs.iter().map(pool).collect(),
        }
    }

    fn assign(&self, node: &Object, taken: &[IpNetwork]) -> Plan {
        let mut plan = Plan::default();
        let mut cidrs = Vec::new();
        for pool in &self.pools {
            let Some(cidr) = pool.free(taken) else {
                let name = node.meta().name.as_deref().unwrap_or_default();
                let message = format!(
                    "Node {name} gets no pod CIDR: all {} blocks of /{} in the cluster CIDR {} are in use; remove Nodes that are gone or start the control plane with a larger --cluster-cidr",
                    pool.blocks(),
                    pool.mask,
                    pool.range
                );
                let event = EventDraft::warning(node, "CIDRNotAvailable", message);
                plan.events.push(event);
                return plan;
            };
            cidrs.push(cidr.to_string());
        }
        let body = json!({
            "metadata": {"uid": node.uid()},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        });
        plan.patch(node.reference(), "", body);
        plan
    }
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    /// Two nodes planned at once would be given the same block.
    fn workers(&self) -> usize {
        1
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        let Some(object) = change.object().filter(|o| o.kind() == Kind::Node) else {
            return Vec::new();
        };
        if change.new.is_some() {
            // Heartbeats change nothing here.
            let cidrs = |o: &Option<Object>| o.as_ref().map(cidrs_of);
            let same = change.old.is_some() && cidrs(&change.old) == cidrs(&change.new);
            return if same {
                Vec::new()
            } else {
                vec![object.reference()]
            };
        }
        // A Node is gone: its block may help those that wait for one.
        let waiting = |node: &&std::sync::Arc<Node>| pod_cidrs(node).is_empty();
        let name = |node: &std::sync::Arc<Node>| node.metadata.name.clone().unwrap_or_default();
        let nodes = state.all::<Node>().filter(waiting);
        nodes
            .map(|node| ObjRef::new(Kind::Node, "", &name(node)))
            .collect()
    }

    fn plan(&mut self, key: &ObjRef, state: &State, _clock: Clock) -> Plan {
        let (Some(node), Some(object)) = (state.get::<Node>(&key.key), state.object(key)) else {
            return Plan::default();
        };
        if self.pools.is_empty() || node.metadata.deletion_timestamp.is_some() {
            return Plan::default();
        }
        let own = pod_cidrs(node);
        let others = state
            .all::<Node>()
            .filter(|other| other.metadata.uid != node.metadata.uid);
        if own.is_empty() {
            let taken: Vec<IpNetwork> = others.flat_map(|other| pod_cidrs(other)).collect();
            return self.assign(object, &taken);
        }
        let mut plan = Plan::default();
        for other in others {
            for cidr in pod_cidrs(other) {
                if let Some(mine) = own.iter().find(|mine| overlaps(**mine, cidr)) {
                    let message = format!(
                        "Pod CIDR {mine} of Node {} overlaps {cidr} of Node {}: Pods of both would share addresses; delete one of the Nodes and let it register again",
                        key.key.name,
                        other.metadata.name.as_deref().unwrap_or_default()
                    );
                    plan.events
                        .push(EventDraft::warning(object, "CIDROverlap", message));
                }
            }
        }
        plan
    }
}

fn cidrs_of(object: &Object) -> Vec<IpNetwork> {
    match object {
        Object::Node(node) => pod_cidrs(node),
        _ => Vec::new(),
    }
}

fn pod_cidrs(node: &Node) -> Vec<IpNetwork> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let several = spec.pod_cidrs.iter().flatten();
    let first = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.is_none());
    several
        .chain(first)
        .filter_map(|cidr| cidr.parse().ok())
        .collect()
}

fn overlaps(a: IpNetwork, b: IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

#[cfg(test)]
mod tests;
