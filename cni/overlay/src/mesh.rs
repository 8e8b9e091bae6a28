//! Nodes as the API has them → this node, its peers, and what is wrong with some of them. Pure.

mod roster;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;
use seaway_model::{Family, Node};

pub use roster::{Roster, Verdict, canonical};

/// A node that takes part: it has an address and pod CIDRs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: Arc<str>,
    /// The first InternalIP: the tunnel endpoint, where both ends have one of its family.
    pub address: IpAddr,
    /// The first InternalIP of the other family.
    pub second: Option<IpAddr>,
    pub pod_cidrs: Vec<IpNetwork>,
}

impl Member {
    /// The node's address of a family.
    pub fn address_of(&self, family: Family) -> Option<IpAddr> {
        self.addresses().find(|ip| Family::of(*ip) == family)
    }

    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address).chain(self.second)
    }

    /// The addresses between which packets to a peer travel: those of our own first family if the peer has it.
    pub fn ends(&self, peer: &Self) -> Option<(IpAddr, IpAddr)> {
        self.addresses()
            .find_map(|ours| Some((ours, peer.address_of(Family::of(ours))?)))
    }
}

/// What keeps a node, or this one, out of the mesh. The others are not held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// This node is not among the Nodes.
    OwnNodeMissing { node: Arc<str> },
    /// No `spec.podCIDRs` yet.
    NoPodCidr { node: Arc<str> },
    /// No `status.addresses` of type InternalIP, or none of a family that this node has, too.
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
    /// What pods cannot have addresses of, or this and more: multicast, loopback, everything.
    NotForPods { node: Arc<str>, cidr: IpNetwork },
    /// A pod CIDR has a node's address in it: packets of the tunnel itself would go into the tunnel, and the way to the whole
    /// network around that address with them.
    Covers {
        node: Arc<str>,
        cidr: IpNetwork,
        /// Whose pod CIDR it is.
        of: Arc<str>,
        address: IpAddr,
        /// Whose address it is.
        covered: Arc<str>,
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
            | Self::NotForPods { node, .. }
            | Self::Covers { node, .. }
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
            Self::NoAddress { node } => write!(
                f,
                "node {node} has no InternalIP address of a family that this node has, too"
            ),
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
            Self::NotForPods { node, cidr } => write!(
                f,
                "pods cannot have addresses of {cidr}, pod CIDR of node {node}; {node} is left out"
            ),
            Self::Covers {
                node,
                cidr,
                of,
                address,
                covered,
            } => write!(
                f,
                "pod CIDR {cidr} of node {of} covers address {address} of node {covered}; {node} is left out"
            ),
        }
    }
}

/// This node as the Nodes have it.
pub fn own(nodes: &BTreeMap<Arc<str>, Node>, name: &str) -> Result<Member, Problem> {
    let node = nodes
        .get(name)
        .ok_or_else(|| Problem::OwnNodeMissing { node: name.into() })?;
    member(node)
}

fn member(node: &Node) -> Result<Member, Problem> {
    let name = node.name.clone();
    let mut addresses = node
        .addresses
        .iter()
        .copied()
        .filter(|ip| is_of_a_node(*ip));
    let Some(address) = addresses.next() else {
        return Err(Problem::NoAddress { node: name });
    };
    if node.pod_cidrs.is_empty() {
        return Err(Problem::NoPodCidr { node: name });
    }
    let family = Family::of(address);
    let member = Member {
        name: name.clone(),
        address,
        second: addresses.find(|ip| Family::of(*ip) != family),
        pod_cidrs: node.pod_cidrs.clone(),
    };
    for &cidr in &member.pod_cidrs {
        if !is_of_a_node(cidr.network()) {
            return Err(Problem::NotForPods { node: name, cidr });
        }
        if let Some(address) = member.addresses().find(|ip| cidr.contains(*ip)) {
            return Err(Problem::Covers {
                node: name.clone(),
                cidr,
                of: name.clone(),
                address,
                covered: name,
            });
        }
    }
    Ok(member)
}

/// Whether other machines can send packets to such an address.
fn is_of_a_node(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        // It would take the link that it is on.
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
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

    /// A Node; lists are separated by spaces.
    pub(super) fn node(name: &str, addresses: &str, cidrs: &str) -> Node {
        Node {
            name: name.into(),
            addresses: addresses
                .split_whitespace()
                .map(|a| a.parse().unwrap())
                .collect(),
            pod_cidrs: cidrs
                .split_whitespace()
                .map(|c| c.parse().unwrap())
                .collect(),
            zone: None,
            draining: false,
            direct_answers: seaway_model::DirectAnswers::No,
        }
    }

    fn nodes(list: &[(&str, &str, &str)]) -> BTreeMap<Arc<str>, Node> {
        list.iter()
            .map(|(name, addresses, cidrs)| ((*name).into(), node(name, addresses, cidrs)))
            .collect()
    }

    fn summary(list: &[(&str, &str, &str)]) -> String {
        let nodes = nodes(list);
        let own = match own(&nodes, "n2") {
            Ok(own) => own,
            Err(problem) => return problem.to_string(),
        };
        let roster = Roster::new(own.clone(), &nodes);
        let mut text = String::new();
        for peer in roster.peers() {
            let (ours, theirs) = own.ends(peer).unwrap();
            text += &format!("{} from {ours} to {theirs}\n", peer.name);
        }
        for problem in roster.problems() {
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
            n1 from 192.168.0.2 to 192.168.0.1
            n9 from 192.168.0.2 to 192.168.0.9
            node n3 has no spec.podCIDRs yet
            node n4 has no InternalIP address of a family that this node has, too
            nodes n2 and n5 both have address 192.168.0.2; n5 is left out
            pod CIDR 10.244.2.0/25 of node n6 overlaps 10.244.2.0/24 of node n2; n6 is left out
            pod CIDR 10.244.0.0/23 of node n7 overlaps 10.244.1.0/24 of node n1; n7 is left out
            node n8 has no InternalIP address of a family that this node has, too
        "#]]
        .assert_eq(&text);
    }

    /// Each of them would have cut this node off, or have been shown as connected.
    #[test]
    fn what_no_node_and_no_pod_can_have_leaves_a_node_out() {
        let text = summary(&[
            ("n1", "192.168.0.1", "192.168.0.0/24"),
            ("n2", "192.168.0.2", "10.244.2.0/24"),
            ("n3", "192.168.0.3", "10.244.3.0/24 192.168.0.0/30"),
            ("n4", "10.244.2.7", "10.244.4.0/24"),
            ("n5", "10.244.3.7", "10.244.5.0/24"),
            ("n6", "192.168.0.6", "224.0.0.0/24"),
            ("n7", "192.168.0.7", "0.0.0.0/0"),
            ("n8", "127.0.0.1 fe80::1 0.0.0.0", "10.244.8.0/24"),
            ("n9", "224.0.0.1 192.168.0.9", "10.244.9.0/24"),
        ]);
        expect_test::expect![[r#"
            n5 from 192.168.0.2 to 10.244.3.7
            n9 from 192.168.0.2 to 192.168.0.9
            pod CIDR 192.168.0.0/24 of node n1 covers address 192.168.0.1 of node n1; n1 is left out
            pod CIDR 192.168.0.0/30 of node n3 covers address 192.168.0.3 of node n3; n3 is left out
            pod CIDR 10.244.2.0/24 of node n2 covers address 10.244.2.7 of node n4; n4 is left out
            pods cannot have addresses of 224.0.0.0/24, pod CIDR of node n6; n6 is left out
            pods cannot have addresses of 0.0.0.0/0, pod CIDR of node n7; n7 is left out
            node n8 has no InternalIP address of a family that this node has, too
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn each_pair_takes_a_family_that_both_have() {
        let text = summary(&[
            ("n1", "fd00::1 192.168.0.1", "10.244.1.0/24 fd01:1::/64"),
            (
                "n2",
                "192.168.0.2 192.168.9.2 fd00::2",
                "10.244.2.0/24 fd01:2::/64",
            ),
            ("n3", "fd00::3", "10.244.3.0/24"),
            ("n4", "192.168.0.4 fd00::3", "10.244.4.0/24"),
            ("n5", "192.168.0.5", "10.244.5.0/24 fd01:2::/96"),
        ]);
        expect_test::expect![[r#"
            n1 from 192.168.0.2 to 192.168.0.1
            n3 from fd00::2 to fd00::3
            nodes n3 and n4 both have address fd00::3; n4 is left out
            pod CIDR fd01:2::/96 of node n5 overlaps fd01:2::/64 of node n2; n5 is left out
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn without_this_node_there_is_no_mesh() {
        let missing = summary(&[("n1", "192.168.0.1", "10.244.1.0/24")]);
        assert!(missing.starts_with("this node (n2) is not among the Nodes"));
        let bare = summary(&[("n2", "192.168.0.2", "")]);
        assert_eq!(bare, "node n2 has no spec.podCIDRs yet");
    }

    #[test]
    fn the_device_address_follows_from_the_node_address() {
        let mac = vtep_mac("192.168.100.7".parse().unwrap());
        assert_eq!(mac.to_string(), "02:53:c0:a8:64:07");
        let mac = vtep_mac("fd00::1:2".parse().unwrap());
        assert_eq!(mac.0[0], 0x02);
    }
}
