//! What should be in the kernel, given the mesh and the uplinks. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_kernel::{Encap, MacAddr, Route};
use seaway_model::Family;
use seaway_model::ownership::{ROUTE_PROTOCOL, VXLAN_LINK};

use crate::mesh::{Member, Roster, canonical, vtep_mac};

#[cfg(test)]
mod tests;

/// What VXLAN adds to a packet: outer Ethernet, IP, UDP and VXLAN headers.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// The kernel has no IPv6 on a link with a smaller MTU (RFC 8200).
const LEAST_OF_IPV6: u32 = 1280;

/// What every node of the cluster has to agree on, and how this one goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Elsewhere, but pods go there with their own addresses.
    pub masquerade_exclusions: Vec<IpNetwork>,
    /// Rules say that packets of pods are forwarded.
    pub forward_rules: bool,
    pub vni: u32,
    pub port: u16,
    /// Peers of the same subnet get packets as they are.
    pub direct_routing: bool,
    pub checksum_offload: ChecksumOffload,
    pub receive_offload: ReceiveOffload,
}

/// `--checksum-offload`: who computes the checksums of packets that go into the tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ChecksumOffload {
    /// The network card, unless a peer does not get what it makes
    #[default]
    Auto,
    /// The network card
    On,
    /// This node, which costs two thirds of the throughput
    Off,
}

/// `--receive-offload`: whether the overlay's device takes packets together that come out of the tunnel (GRO).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReceiveOffload {
    /// Unless the uplinks do so before
    #[default]
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

/// The link that leads from one of this node's addresses to the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// What comes in there has been taken together (GRO) already: of tunnels, too, whose port the kernel listens at
    /// (`vxlan_gro_receive`).
    pub merged: bool,
    /// The node's address there, with its prefix length.
    pub network: IpNetwork,
}

/// The uplink of each family that this node has an address of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Underlay {
    pub v4: Option<Uplink>,
    pub v6: Option<Uplink>,
}

impl Underlay {
    /// The uplink of a family.
    pub fn of(&self, family: Family) -> Option<&Uplink> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Whether a link is an uplink.
    pub fn has(&self, index: u32) -> bool {
        let mut uplinks = self.v4.iter().chain(&self.v6);
        uplinks.any(|uplink| uplink.index == index)
    }

    /// Whether all uplinks hand over packets that are taken together.
    fn merged(&self) -> bool {
        let mut uplinks = self.v4.iter().chain(&self.v6);
        uplinks.all(|uplink| uplink.merged)
    }

    /// The names of the uplinks, with their indices.
    pub fn names(&self) -> BTreeMap<String, u32> {
        let uplinks = self.v4.iter().chain(&self.v6);
        uplinks
            .map(|uplink| (uplink.name.clone(), uplink.index))
            .collect()
    }
}

/// What probing found that has to be worked around.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// The largest packet that reaches a peer, where that is less than it should be.
    pub mtu: BTreeMap<Arc<str>, u32>,
    /// Checksums that are left to the network card arrive wrong.
    pub offload_broken: bool,
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
    pub routes: BTreeMap<IpNetwork, Hop>,
    /// The next hops of those routes that lead through the tunnel.
    pub neighbours: BTreeMap<IpAddr, MacAddr>,
    /// Where VXLAN packets may come from.
    pub known: BTreeSet<IpAddr>,
}

/// The VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub port: u16,
    pub mac: MacAddr,
    pub mtu: u32,
    pub checksum_offload: bool,
    /// Takes packets together that come out of the tunnel. To look for some where there are none costs a packet some 6 % of
    /// its way from pod to pod.
    pub receive_offload: bool,
}

/// Where the packets of a route go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub way: Way,
    /// The largest packet, where that is not the device's MTU.
    pub mtu: Option<u32>,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Tunnel {
        gateway: IpAddr,
        encap: Encap,
    },
    /// As they are, over an uplink.
    Direct {
        gateway: IpAddr,
        link: u32,
    },
}

impl Hop {
    /// As a route, given the index of the VXLAN device.
    pub fn route(&self, destination: IpNetwork, device: u32) -> Route {
        let route = Route {
            mtu: self.mtu,
            ..Route::new(destination, ROUTE_PROTOCOL)
        };
        match self.way {
            Way::Tunnel { gateway, encap } => Route {
                gateway: Some(gateway),
                link: Some(device),
                onlink: true,
                encap: Some(encap),
                ..route
            },
            Way::Direct { gateway, link } => Route {
                gateway: Some(gateway),
                link: Some(link),
                ..route
            },
        }
    }
}

/// What is left for packets of pods in a tunnel of this family over an uplink.
pub fn overlay_mtu(uplink_mtu: u32, family: Family) -> u32 {
    let overhead = match family {
        Family::V4 => OVERHEAD_V4,
        Family::V6 => OVERHEAD_V6,
    };
    uplink_mtu.saturating_sub(overhead)
}

/// How this node goes about its peers, all of them alike.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    pub settings: &'a Settings,
    pub underlay: &'a Underlay,
    pub findings: &'a Findings,
}

impl Manner<'_> {
    /// The wanted state of this node. It has only addresses of families that the underlay has.
    pub fn plan(&self, roster: &Roster) -> Desired {
        let own = roster.own();
        let mut desired = Desired {
            device: self.device(roster),
            addresses: own
                .pod_cidrs
                .iter()
                .map(|cidr| base(*cidr).into())
                .collect(),
            settings: kernel_settings(own),
            routes: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            known: BTreeSet::new(),
        };
        for peer in roster.peers() {
            self.add(own, peer, &mut desired);
        }
        desired
    }

    /// The device that is wanted.
    pub fn device(&self, roster: &Roster) -> Device {
        let own = roster.own();
        let families = roster.families().chain([Family::of(own.address)]);
        let mtu = families
            .filter_map(|family| Some(overlay_mtu(self.underlay.of(family)?.mtu, family)))
            .min()
            .unwrap_or_default();
        Device {
            port: self.settings.port,
            mac: vtep_mac(own.address),
            mtu,
            checksum_offload: match self.settings.checksum_offload {
                ChecksumOffload::Auto => !self.findings.offload_broken,
                ChecksumOffload::On => true,
                ChecksumOffload::Off => false,
            },
            receive_offload: match self.settings.receive_offload {
                ReceiveOffload::Auto => !self.underlay.merged(),
                ReceiveOffload::On => true,
                ReceiveOffload::Off => false,
            },
        }
    }

    /// What one peer adds.
    pub fn add(&self, own: &Member, peer: &Member, desired: &mut Desired) {
        let Some((source, remote)) = own.ends(peer) else {
            return;
        };
        let encap = Encap {
            source: Some(source),
            ..Encap::new(self.settings.vni.into(), remote)
        };
        let narrow = self.findings.mtu.get(&peer.name).copied();
        let mtu = narrow.filter(|narrow| *narrow < desired.device.mtu);
        // It may have other flags than we do, and another opinion on which family to take.
        desired.known.extend(peer.addresses());
        for &cidr in &peer.pod_cidrs {
            let way = match direct(peer, cidr, self.settings, self.underlay) {
                Some(way) => way,
                None => {
                    let gateway = base(cidr);
                    desired.neighbours.insert(gateway, vtep_mac(peer.address));
                    Way::Tunnel { gateway, encap }
                }
            };
            desired.routes.insert(canonical(cidr), Hop { way, mtu });
        }
    }
}

impl Desired {
    /// What is wrong where the kernel would refuse IPv6 on the device, without saying why.
    pub fn too_narrow(&self) -> Option<String> {
        let mtu = self.device.mtu;
        let is_short = mtu < LEAST_OF_IPV6 && self.addresses.iter().any(IpNetwork::is_ipv6);
        is_short.then(|| {
            format!(
                "the MTU of {VXLAN_LINK} is {mtu}, and IPv6 needs {LEAST_OF_IPV6}: its pod CIDRs cannot be served before that \
                 of the uplinks is raised by {}",
                LEAST_OF_IPV6 - mtu
            )
        })
    }

    /// The same without peers.
    pub fn without_peers(&self) -> Self {
        Self {
            device: self.device,
            addresses: self.addresses.clone(),
            settings: self.settings.clone(),
            routes: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            known: BTreeSet::new(),
        }
    }

    /// Moves what a peer added to another. Peers share nothing.
    pub fn give(&mut self, peer: &Member, to: &mut Self) {
        for &cidr in &peer.pod_cidrs {
            let destination = canonical(cidr);
            to.routes.extend(self.routes.remove_entry(&destination));
            to.neighbours
                .extend(self.neighbours.remove_entry(&base(cidr)));
        }
        to.known
            .extend(peer.addresses().filter_map(|ip| self.known.take(&ip)));
    }

    /// Takes in what peers add to another.
    pub fn take_peers(&mut self, mut from: Self) {
        self.routes.append(&mut from.routes);
        self.neighbours.append(&mut from.neighbours);
        self.known.append(&mut from.known);
    }
}

/// The way without a tunnel, to a peer in our subnet.
fn direct(peer: &Member, cidr: IpNetwork, settings: &Settings, underlay: &Underlay) -> Option<Way> {
    let family = Family::of(cidr.ip());
    let uplink = underlay.of(family).filter(|_| settings.direct_routing)?;
    let gateway = peer.address_of(family)?;
    let link = uplink.index;
    uplink
        .network
        .contains(gateway)
        .then_some(Way::Direct { gateway, link })
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
        // It may be off for new links (`default`) where those that need it have it.
        settings.insert(format!("net/ipv6/conf/{VXLAN_LINK}/disable_ipv6"), "0");
        // No peer's router advertisement is for this node.
        settings.insert(format!("net/ipv6/conf/{VXLAN_LINK}/accept_ra"), "0");
    }
    settings
}

/// The base address of a pod CIDR: the node's own on the overlay, never a pod's.
pub fn base(cidr: IpNetwork) -> IpAddr {
    cidr.network()
}
