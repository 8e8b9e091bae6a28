//! What should be in the kernel, given the mesh and the uplink. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{Encap, MacAddr, Route};
use seaway_model::ownership::{ROUTE_PROTOCOL, VXLAN_LINK};

use crate::mesh::{Member, vtep_mac};

/// What VXLAN adds to a packet: outer Ethernet, IP, UDP and VXLAN headers.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// What every node of the cluster has to agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub cluster_cidrs: Vec<IpNetwork>,
    pub vni: u32,
    pub port: u16,
}

/// The wanted state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub device: Device,
    /// The base address of each own pod CIDR.
    pub addresses: BTreeSet<IpNetwork>,
    /// Kernel settings, in the path form of sysctl keys.
    pub settings: BTreeMap<String, &'static str>,
    /// By destination.
    pub routes: BTreeMap<IpNetwork, Tunnel>,
    /// The next hops of those routes.
    pub neighbours: BTreeMap<IpAddr, MacAddr>,
}

/// The VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub port: u16,
    pub mac: MacAddr,
    pub mtu: u32,
}

/// Where the packets of a route go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    pub gateway: IpAddr,
    pub encap: Encap,
}

impl Tunnel {
    /// As a route on the device of that index.
    pub fn route(&self, destination: IpNetwork, link: u32) -> Route {
        Route {
            gateway: Some(self.gateway),
            link: Some(link),
            onlink: true,
            encap: Some(self.encap),
            ..Route::new(destination, ROUTE_PROTOCOL)
        }
    }
}

/// The MTU of the device, and of pods, over an uplink.
pub fn overlay_mtu(uplink_mtu: u32, tunnel: IpAddr) -> u32 {
    let overhead = if tunnel.is_ipv4() {
        OVERHEAD_V4
    } else {
        OVERHEAD_V6
    };
    uplink_mtu.saturating_sub(overhead)
}

/// The wanted state of this node.
pub fn plan(own: &Member, peers: &[Member], settings: &Settings, uplink_mtu: u32) -> Desired {
    let mut desired = Desired {
        device: Device {
            port: settings.port,
            mac: vtep_mac(own.address),
            mtu: overlay_mtu(uplink_mtu, own.address),
        },
        addresses: own
            .pod_cidrs
            .iter()
            .map(|cidr| base(*cidr).into())
            .collect(),
        settings: kernel_settings(own),
        routes: BTreeMap::new(),
        neighbours: BTreeMap::new(),
    };
    for peer in peers {
        let encap = Encap {
            id: settings.vni.into(),
            remote: peer.address,
        };
        for &cidr in &peer.pod_cidrs {
            let gateway = base(cidr);
            desired
                .routes
                .insert(canonical(cidr), Tunnel { gateway, encap });
            desired.neighbours.insert(gateway, vtep_mac(peer.address));
        }
    }
    desired
}

fn kernel_settings(own: &Member) -> BTreeMap<String, &'static str> {
    let mut settings = BTreeMap::new();
    if own.pod_cidrs.iter().any(IpNetwork::is_ipv4) {
        settings.insert("net/ipv4/ip_forward".into(), "1");
        // Loose: processes of a peer that are bound to its node address arrive here, though the way back to that
        // address is the uplink. The larger of this and the "all" value counts (ip-sysctl).
        settings.insert(format!("net/ipv4/conf/{VXLAN_LINK}/rp_filter"), "2");
    }
    if own.pod_cidrs.iter().any(IpNetwork::is_ipv6) {
        settings.insert("net/ipv6/conf/all/forwarding".into(), "1");
    }
    settings
}

/// The base address of a pod CIDR: the node's own on the overlay, never a pod's.
pub fn base(cidr: IpNetwork) -> IpAddr {
    cidr.network()
}

/// Without host bits, as the kernel shows it.
fn canonical(cidr: IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, address: &str, cidrs: &[&str]) -> Member {
        Member {
            name: name.into(),
            address: address.parse().unwrap(),
            pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
        }
    }

    fn settings() -> Settings {
        Settings {
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            vni: 1,
            port: 8472,
        }
    }

    #[test]
    fn a_peer_is_one_route_and_one_neighbour_per_family() {
        let own = member("n1", "192.168.0.1", &["10.244.1.0/24"]);
        let peer = member("n2", "192.168.0.2", &["10.244.2.7/24", "fd00:2::/64"]);
        let desired = plan(&own, &[peer], &settings(), 1500);
        let routes: Vec<_> = desired
            .routes
            .iter()
            .map(|(destination, tunnel)| tunnel.route(*destination, 7).to_string())
            .collect();
        assert_eq!(
            routes,
            [
                "10.244.2.0/24 encap id 1 dst 192.168.0.2 via 10.244.2.0 dev #7",
                "fd00:2::/64 encap id 1 dst 192.168.0.2 via fd00:2:: dev #7",
            ]
        );
        let mac = vtep_mac("192.168.0.2".parse().unwrap());
        assert!(desired.neighbours.values().all(|m| *m == mac));
        assert_eq!(desired.neighbours.len(), 2);
        assert_eq!(desired.device.mtu, 1450);
        assert_eq!(
            desired.addresses,
            BTreeSet::from(["10.244.1.0/32".parse().unwrap()])
        );
    }

    #[test]
    fn an_ipv6_underlay_costs_more() {
        assert_eq!(overlay_mtu(1500, "fd00::1".parse().unwrap()), 1430);
        assert_eq!(overlay_mtu(9000, "10.0.0.1".parse().unwrap()), 8950);
    }
}
