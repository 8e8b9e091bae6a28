//! Nodes as the API has them → this node, its peers, and what is wrong with some of them. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;
use seaway_model::{Family, Node};
use serde::Serialize;

/// A node that takes part: it has an address and pod CIDRs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub name: Arc<str>,
    /// The tunnel endpoint.
    pub address: IpAddr,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNetwork>,
}

/// What keeps a node, or this one, out of the mesh. The others are not held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Problem {
    /// This node is not among the Nodes.
    OwnNodeMissing { node: Arc<str> },
    /// No `spec.podCIDRs` yet.
    NoPodCidr { node: Arc<str> },
    /// No `status.addresses` of type InternalIP of the family that this node's tunnel has.
    NoAddress { node: Arc<str> },
    /// `node` has the address of `other`, which keeps it.
    SameAddress {
        node: Arc<str>,
        other: Arc<str>,
        address: IpAddr,
    },
    /// A pod CIDR of `node` overlaps one of `other`, which keeps its own.
    Overlap {
        node: Arc<str>,
        cidr: IpNetwork,
        other: Arc<str>,
        other_cidr: IpNetwork,
    },
}

impl Problem {
    /// The node that is left out because of it.
    pub fn node(&self) -> &Arc<str> {
        match self {
            Self::OwnNodeMissing { node }
            | Self::NoPodCidr { node }
            | Self::NoAddress { node }
            | Self::SameAddress { node, .. }
            | Self::Overlap { node, .. } => node,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnNodeMissing { node } => write!(
                f,
                "this node ({node}) is not among the Nodes; --node-name must be its name there"
            ),
            Self::NoPodCidr { node } => write!(f, "node {node} has no spec.podCIDRs yet"),
            Self::NoAddress { node } => write!(f, "node {node} has no usable InternalIP address"),
            Self::SameAddress {
                node,
                other,
                address,
            } => write!(
                f,
                "nodes {other} and {node} both have address {address}; {node} is left out"
            ),
            Self::Overlap {
                node,
                cidr,
                other,
                other_cidr,
            } => write!(
                f,
                "pod CIDR {cidr} of node {node} overlaps {other_cidr} of node {other}; {node} is left out"
            ),
        }
    }
}

/// The mesh as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mesh {
    /// This node, when it can take part.
    pub own: Option<Member>,
    pub peers: Vec<Member>,
    pub problems: Vec<Problem>,
}

/// Sorts the Nodes out. When two of them claim the same thing, this node keeps its own, and among peers the first by
/// name does, so that every node decides alike.
pub fn mesh(nodes: &BTreeMap<Arc<str>, Node>, own_name: &str) -> Mesh {
    let mut mesh = Mesh::default();
    let Some(own) = nodes.get(own_name) else {
        let node = own_name.into();
        mesh.problems.push(Problem::OwnNodeMissing { node });
        return mesh;
    };
    let own = match member(own, None) {
        Ok(own) => own,
        Err(problem) => {
            mesh.problems.push(problem);
            return mesh;
        }
    };
    let family = Family::of(own.address);
    for node in nodes.values().filter(|node| *node.name != *own_name) {
        let candidate = member(node, Some(family)).and_then(|candidate| {
            std::iter::once(&own)
                .chain(&mesh.peers)
                .find_map(|settled| conflict(&candidate, settled))
                .map_or(Ok(candidate), Err)
        });
        match candidate {
            Ok(peer) => mesh.peers.push(peer),
            Err(problem) => mesh.problems.push(problem),
        }
    }
    mesh.own = Some(own);
    mesh
}

fn member(node: &Node, family: Option<Family>) -> Result<Member, Problem> {
    let name = node.name.clone();
    let address = node
        .addresses
        .iter()
        .copied()
        .find(|address| family.is_none_or(|family| Family::of(*address) == family));
    let Some(address) = address else {
        return Err(Problem::NoAddress { node: name });
    };
    if node.pod_cidrs.is_empty() {
        return Err(Problem::NoPodCidr { node: name });
    }
    Ok(Member {
        name,
        address,
        pod_cidrs: node.pod_cidrs.clone(),
    })
}

fn conflict(candidate: &Member, settled: &Member) -> Option<Problem> {
    if candidate.address == settled.address {
        return Some(Problem::SameAddress {
            node: candidate.name.clone(),
            other: settled.name.clone(),
            address: candidate.address,
        });
    }
    candidate.pod_cidrs.iter().find_map(|&cidr| {
        let other_cidr = *settled.pod_cidrs.iter().find(|c| overlap(cidr, **c))?;
        Some(Problem::Overlap {
            node: candidate.name.clone(),
            cidr,
            other: settled.name.clone(),
            other_cidr,
        })
    })
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// The link-layer address of a node's VXLAN device: every node derives it from the node's address, so nobody has to
/// publish it. Locally administered (IEEE 802). It matters to the receiver only, which has no second device to confuse
/// it with; so folding an IPv6 address is good enough.
pub fn vtep_mac(address: IpAddr) -> MacAddr {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let mut folded = [0; 4];
            for (index, byte) in v6.octets().into_iter().enumerate() {
                folded[index % 4] ^= byte;
            }
            folded
        }
    };
    MacAddr([0x02, 0x53, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(list: &[(&str, &str, &str)]) -> BTreeMap<Arc<str>, Node> {
        list.iter()
            .map(|(name, address, cidr)| {
                let node = Node {
                    name: (*name).into(),
                    addresses: address.parse().into_iter().collect(),
                    pod_cidrs: cidr.parse().into_iter().collect(),
                    zone: None,
                    draining: false,
                };
                (node.name.clone(), node)
            })
            .collect()
    }

    fn summary(list: &[(&str, &str, &str)]) -> String {
        let mesh = mesh(&nodes(list), "n2");
        let peers: Vec<_> = mesh.peers.iter().map(|p| p.name.to_string()).collect();
        let own = mesh.own.map_or("-".into(), |own| own.name.to_string());
        let mut text = format!("own {own}, peers {}\n", peers.join(" "));
        for problem in mesh.problems {
            text += &format!("{problem}\n");
        }
        text
    }

    #[test]
    fn a_bad_peer_does_not_hold_back_others() {
        let text = summary(&[
            ("n1", "192.168.0.1", "10.244.1.0/24"),
            ("n2", "192.168.0.2", "10.244.2.0/24"),
            ("n3", "192.168.0.3", ""),
            ("n4", "", "10.244.4.0/24"),
            ("n5", "192.168.0.2", "10.244.5.0/24"),
            ("n6", "192.168.0.6", "10.244.2.0/25"),
            ("n7", "192.168.0.7", "10.244.0.0/23"),
            ("n8", "fd00::8", "10.244.8.0/24"),
            ("n9", "192.168.0.9", "10.244.9.0/24"),
        ]);
        expect_test::expect![[r#"
            own n2, peers n1 n9
            node n3 has no spec.podCIDRs yet
            node n4 has no usable InternalIP address
            nodes n2 and n5 both have address 192.168.0.2; n5 is left out
            pod CIDR 10.244.2.0/25 of node n6 overlaps 10.244.2.0/24 of node n2; n6 is left out
            pod CIDR 10.244.0.0/23 of node n7 overlaps 10.244.1.0/24 of node n1; n7 is left out
            node n8 has no usable InternalIP address
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn without_this_node_there_is_no_mesh() {
        let missing = summary(&[("n1", "192.168.0.1", "10.244.1.0/24")]);
        assert!(missing.starts_with("own -, peers \nthis node (n2) is not among the Nodes"));
        let bare = summary(&[("n2", "192.168.0.2", "")]);
        assert_eq!(bare, "own -, peers \nnode n2 has no spec.podCIDRs yet\n");
    }

    #[test]
    fn the_device_address_follows_from_the_node_address() {
        let mac = vtep_mac("192.168.100.7".parse().unwrap());
        assert_eq!(mac.to_string(), "02:53:c0:a8:64:07");
        let mac = vtep_mac("fd00::1:2".parse().unwrap());
        assert_eq!(mac.0[0], 0x02);
    }
}
