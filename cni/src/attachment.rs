//! One pod's interface, with every name and address that follows from the request. Pure.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use seaway_kernel::MacAddr;
use seaway_model::ownership::{
    POD_GATEWAY_V4, POD_LINK_DIGITS, POD_LINK_PREFIX, POD_ROUTE_TABLES, SHAPING_LINK_PREFIX,
};
use sha2::{Digest, Sha256};

use crate::ipam::Assigned;
use crate::protocol::{AddResult, Dns, Interface, IpConfig, OwnerKey, RouteConfig};

/// The IPv6 gateway that pods see; like the IPv4 one never on a wire.
pub const POD_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

const EVERYTHING_V4: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0) {
    Some(network) => network,
    None => panic!("0 is a prefix length"),
};

const EVERYTHING_V6: Ipv6Network = match Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0) {
    Some(network) => network,
    None => panic!("0 is a prefix length"),
};

/// What a pod sees of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Its own address only, and a link-local gateway.
    Routed,
    /// As the reference `ptp` plugin: an address of a subnet, with that subnet's gateway, which is the node.
    Ptp,
}

/// An address of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// With the prefix that the pod sees.
    pub network: IpNetwork,
    pub gateway: IpAddr,
    /// Whether the gateway is an address of the host side.
    pub on_host: bool,
}

/// What ADD makes and DEL removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub ifname: String,
    pub host_link: String,
    pub pod_mac: MacAddr,
    pub host_mac: MacAddr,
    pub addresses: Vec<PodAddress>,
    /// In the pod, beside what leads to the gateways.
    pub routes: Vec<RouteConfig>,
    /// None: the kernel's default.
    pub mtu: Option<u32>,
    /// Of the pod, for what it sends from these addresses if it has another link as well.
    pub table: u32,
}

impl Attachment {
    /// Without addresses. Names follow from the owner alone, so that DEL finds them without any record.
    pub fn new(owner: &OwnerKey, mtu: Option<u32>, mac: Option<MacAddr>) -> Self {
        let digest = digest(owner);
        Self {
            ifname: owner.ifname.clone(),
            host_link: host_link(owner),
            pod_mac: mac.unwrap_or_else(|| local_mac(&digest[8..14])),
            host_mac: local_mac(&digest[14..20]),
            addresses: Vec::new(),
            routes: Vec::new(),
            mtu,
            table: table(owner),
        }
    }

    /// With these addresses, in that style, and with routes of the config. A routed pod has a default route in any case.
    #[must_use]
    pub fn with(mut self, style: Style, assigned: &[Assigned], routes: &[RouteConfig]) -> Self {
        for one in assigned {
            let ip = one.address.ip();
            self.addresses.push(match (style, one.gateway) {
                (Style::Ptp, Some(gateway)) => PodAddress {
                    network: one.address,
                    gateway,
                    on_host: true,
                },
                (Style::Ptp, None) => PodAddress {
                    network: one.address,
                    gateway: gateway(ip),
                    on_host: false,
                },
                (Style::Routed, _) => PodAddress {
                    network: ip.into(),
                    gateway: gateway(ip),
                    on_host: false,
                },
            });
        }
        if style == Style::Routed {
            for ipv4 in [true, false] {
                let of_family = |a: &&PodAddress| a.network.is_ipv4() == ipv4;
                if let Some(address) = self.addresses.iter().find(of_family) {
                    let to = everything(address.gateway);
                    if !routes.iter().any(|route| route.destination == to) {
                        let route = RouteConfig::new(to, Some(address.gateway));
                        self.routes.push(route);
                    }
                }
            }
        }
        self.routes.extend_from_slice(routes);
        self
    }

    /// The gateway of a family's first address; none if the pod has no address of that family.
    pub fn gateway_for(&self, destination: IpNetwork) -> Option<IpAddr> {
        self.addresses
            .iter()
            .find(|a| a.network.is_ipv4() == destination.is_ipv4())
            .map(|a| a.gateway)
    }

    /// The result for the runtime; `sandbox` is the namespace's path as it was given.
    pub fn result(&self, sandbox: &str, dns: Dns) -> AddResult {
        let link = |name: &String, mac: MacAddr, sandbox: &str| Interface {
            name: name.clone(),
            mac: mac.to_string(),
            mtu: self.mtu,
            sandbox: sandbox.to_owned(),
        };
        AddResult {
            interfaces: vec![
                link(&self.host_link, self.host_mac, ""),
                link(&self.ifname, self.pod_mac, sandbox),
            ],
            ips: self
                .addresses
                .iter()
                .map(|address| IpConfig {
                    address: address.network,
                    gateway: Some(address.gateway),
                    interface: Some(1),
                })
                .collect(),
            routes: self.routes.clone(),
            dns,
        }
    }
}

/// The digits by which everything of an attachment is named: 11 hexadecimal ones of SHA-256 over `containerID/ifname`.
pub fn digits(owner: &OwnerKey) -> String {
    let mut text = digest(owner).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    text.truncate(POD_LINK_DIGITS);
    text
}

/// The pod's routing table for an attachment.
pub fn table(owner: &OwnerKey) -> u32 {
    let digest = digest(owner);
    let number = digest
        .iter()
        .take(4)
        .fold(0, |number, byte| number << 8 | u32::from(*byte));
    POD_ROUTE_TABLES | (number >> 12)
}

/// The name of the host side.
pub fn host_link(owner: &OwnerKey) -> String {
    format!("{POD_LINK_PREFIX}{}", digits(owner))
}

/// The name of the device by which what a pod sends is limited.
pub fn shaping_link(owner: &OwnerKey) -> String {
    format!("{SHAPING_LINK_PREFIX}{}", digits(owner))
}

/// The gateway of an address's family.
pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => POD_GATEWAY_V4.into(),
        IpAddr::V6(_) => POD_GATEWAY_V6.into(),
    }
}

/// The default destination of an address's family.
pub fn everything(address: IpAddr) -> IpNetwork {
    match address {
        IpAddr::V4(_) => EVERYTHING_V4.into(),
        IpAddr::V6(_) => EVERYTHING_V6.into(),
    }
}

fn digest(owner: &OwnerKey) -> Vec<u8> {
    let key = format!("{}/{}", owner.container_id, owner.ifname);
    Sha256::digest(key.as_bytes()).to_vec()
}

/// Unicast and locally administered (IEEE 802, second bit of the first byte).
fn local_mac(bytes: &[u8]) -> MacAddr {
    let mut mac = [0; 6];
    mac.copy_from_slice(bytes);
    mac[0] = (mac[0] & 0xfc) | 0x02;
    MacAddr(mac)
}
