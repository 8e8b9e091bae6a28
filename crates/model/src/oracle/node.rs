//! The node on which a packet is looked at.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::{Origin, Packet};
use crate::desired::Client;
use crate::settings::DetectLocal;

/// What decides besides the Services: the node and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NodeContext {
    /// Every local address of the node but loopback.
    pub addresses: Vec<IpAddr>,
    /// Who is a pod.
    pub detect_local: DetectLocal,
    /// `--masquerade-all`: all cluster IP traffic is masqueraded.
    pub masquerade_all: bool,
    /// `--nodeport-addresses`: node ports are served on local addresses in these ranges only; `None`: on all of them
    /// but loopback.
    pub node_port_addresses: Option<Vec<IpNetwork>>,
    /// Whether processes of the node reach node ports at loopback addresses, too. A data plane that translates sockets
    /// serves them, unless the operator says where node ports are served.
    pub loopback_node_ports: bool,
}

impl NodeContext {
    /// Whether this is an address of the node.
    pub fn is_node(&self, addr: IpAddr) -> bool {
        self.addresses.contains(&addr)
    }

    /// Whether node ports are served on this address.
    pub fn serves_node_ports(&self, addr: IpAddr) -> bool {
        let ranges = self.node_port_addresses.as_ref();
        self.is_node(addr)
            && ranges.is_none_or(|ranges| ranges.iter().any(|range| range.contains(addr)))
    }

    /// Whether the packet is for an address at which it may find node ports.
    pub fn knocks_at_node(&self, packet: &Packet) -> bool {
        let to = packet.destination.ip();
        let is_own = packet.origin == Origin::NodeProcess;
        self.serves_node_ports(to) || (self.loopback_node_ports && is_own && to.is_loopback())
    }

    /// Whether the packet counts as a pod's. Where that goes by the link, the links of this node's pods are the ones
    /// that the setting names.
    pub fn is_pod(&self, packet: &Packet) -> bool {
        match &self.detect_local {
            DetectLocal::ClusterCidr(cidrs) | DetectLocal::NodeCidr(cidrs) => {
                cidrs.iter().any(|cidr| cidr.contains(packet.source))
            }
            DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => {
                packet.origin == Origin::LocalPod
            }
            DetectLocal::None => false,
        }
    }

    /// Who asks, as far as traffic policy is concerned.
    pub fn client(&self, packet: &Packet) -> Client {
        if self.is_pod(packet)
            || self.is_node(packet.source)
            || packet.origin == Origin::NodeProcess
        {
            Client::Internal
        } else {
            Client::External
        }
    }
}
