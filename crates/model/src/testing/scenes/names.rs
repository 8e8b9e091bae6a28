//! Names of addresses, and the language of the tables.
//!
//! | name | what |
//! |---|---|
//! | `here`, `here2` | endpoints on this node; as a source: the endpoint itself asks |
//! | `there`, `there2` | endpoints on another node |
//! | `pod` | a pod of this node that is no endpoint |
//! | `farpod` | a pod of another node |
//! | `node`, `node2` | this node: its first address, and another one |
//! | `othernode` | another node |
//! | `friend`, `stranger` | outside of the cluster, within and out of the source ranges |
//! | `cluster`, `cluster2` | cluster IPs |
//! | `balancer`, `balancer2`, `external`, `forbidden` | load balancer and external IPs, the last not allowed |
//! | `free` | an address that no Service has |
//! | `loopback` | this node's |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::IpNetwork;

use super::Case;
use crate::inputs::{Family, Protocol};
use crate::oracle::{Origin, Outcome, Outcomes, Packet};
use crate::testing::networks;

/// The address of that name.
///
/// # Panics
/// If there is none.
pub fn address(name: &str, family: Family) -> IpAddr {
    let (v4, v6): ([u8; 4], [u16; 8]) = match name {
        "here" => ([10, 244, 1, 2], [0xfd00, 0x10, 0x244, 1, 0, 0, 0, 2]),
        "here2" => ([10, 244, 1, 4], [0xfd00, 0x10, 0x244, 1, 0, 0, 0, 4]),
        "pod" => ([10, 244, 1, 3], [0xfd00, 0x10, 0x244, 1, 0, 0, 0, 3]),
        "there" => ([10, 244, 2, 2], [0xfd00, 0x10, 0x244, 2, 0, 0, 0, 2]),
        "there2" => ([10, 244, 2, 4], [0xfd00, 0x10, 0x244, 2, 0, 0, 0, 4]),
        "farpod" => ([10, 244, 2, 9], [0xfd00, 0x10, 0x244, 2, 0, 0, 0, 9]),
        "node" => ([192, 168, 100, 1], [0xfd00, 0x192, 0, 0, 0, 0, 0, 1]),
        "node2" => ([172, 16, 0, 1], [0xfd00, 0x172, 0, 0, 0, 0, 0, 1]),
        "othernode" => ([192, 168, 100, 2], [0xfd00, 0x192, 0, 0, 0, 0, 0, 2]),
        "friend" => ([192, 0, 2, 1], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]),
        "stranger" => ([198, 51, 100, 1], [0x2001, 0xdb8, 3, 0, 0, 0, 0, 1]),
        "cluster" => ([10, 96, 0, 10], [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 10]),
        "cluster2" => ([10, 96, 0, 11], [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 11]),
        "free" => ([10, 96, 0, 99], [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 99]),
        "balancer" => ([203, 0, 113, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]),
        "balancer2" => ([203, 0, 113, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]),
        "external" => ([203, 0, 113, 9], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 9]),
        "forbidden" => ([203, 0, 113, 99], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 99]),
        "loopback" => (Ipv4Addr::LOCALHOST.octets(), Ipv6Addr::LOCALHOST.segments()),
        _ => panic!("no address is named {name:?}"),
    };
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
    }
}

/// Where pods are.
pub fn cluster_cidrs() -> Vec<IpNetwork> {
    networks(&["10.244.0.0/16", "fd00:10:244::/48"])
}

/// Where the pods of this node are.
pub fn node_cidrs() -> Vec<IpNetwork> {
    networks(&["10.244.1.0/24", "fd00:10:244:1::/64"])
}

/// Holds `external`, but not `forbidden`.
pub fn allowed_external_ips() -> Vec<IpNetwork> {
    networks(&["203.0.113.0/28", "2001:db8:1::/124"])
}

/// Holds `friend`, but no other source.
pub fn friends() -> Vec<IpNetwork> {
    networks(&["192.0.2.0/24", "2001:db8:2::/48"])
}

/// Reads a line of a table.
pub(super) fn case(line: &'static str, family: Family) -> Option<Case> {
    let (packet, outcomes) = line.split_once('=')?;
    let (from, to) = packet.split_once("->")?;
    let (to, protocol) = to.trim().split_once('/')?;
    let (to, port) = to.split_once(':')?;
    let from = from.trim();
    let packet = Packet {
        source: address(from, family),
        destination: SocketAddr::new(address(to, family), port.parse().ok()?),
        protocol: match protocol.trim() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        },
        origin: match from {
            "pod" | "here" | "here2" => Origin::LocalPod,
            // A balancer's address as a source: the node has it and asks itself.
            "node" | "node2" | "loopback" | "balancer" | "balancer2" | "external" => {
                Origin::NodeProcess
            }
            _ => Origin::External,
        },
    };
    let outcomes = outcomes.split_whitespace();
    let expected = outcomes
        .map(|word| outcome(word, family))
        .collect::<Option<Outcomes>>()?;
    Some(Case {
        line,
        packet,
        expected,
    })
}

/// `reject`, `drop`, `pass`, or an endpoint: `here`, `there:9090` (8080 if it does not say), `here+masq`.
fn outcome(word: &str, family: Family) -> Option<Outcome> {
    Some(match word {
        "reject" => Outcome::Reject,
        "drop" => Outcome::Drop,
        "pass" => Outcome::Pass,
        _ => {
            let (backend, masqueraded) = match word.strip_suffix("+masq") {
                Some(backend) => (backend, true),
                None => (word, false),
            };
            let (name, port) = backend.split_once(':').unwrap_or((backend, "8080"));
            Outcome::Deliver {
                backend: SocketAddr::new(address(name, family), port.parse().ok()?),
                masqueraded,
            }
        }
    })
}
