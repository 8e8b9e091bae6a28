//! One pod's interface, with every name and address that follows from the request. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use seaway_kernel::MacAddr;
use seaway_model::ownership::{POD_GATEWAY_V4, POD_LINK_DIGITS, POD_LINK_PREFIX};
use sha2::{Digest, Sha256};

use crate::protocol::{AddResult, Interface, IpConfig, OwnerKey, RouteConfig};

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

/// What ADD makes and DEL removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub ifname: String,
    pub host_link: String,
    pub pod_mac: MacAddr,
    pub host_mac: MacAddr,
    /// At most one per family.
    pub addresses: Vec<IpAddr>,
    pub mtu: u32,
}

impl Attachment {
    /// Names follow from the owner alone, so that DEL finds them without any record.
    pub fn new(owner: &OwnerKey, addresses: Vec<IpAddr>, mtu: u32, mac: Option<MacAddr>) -> Self {
        let digest = digest(owner);
        Self {
            ifname: owner.ifname.clone(),
            host_link: host_link(owner),
            pod_mac: mac.unwrap_or_else(|| local_mac(&digest[8..14])),
            host_mac: local_mac(&digest[14..20]),
            addresses,
            mtu,
        }
    }

    /// The result for the runtime; `sandbox` is the namespace's path as it was given.
    pub fn result(&self, sandbox: &str) -> AddResult {
        let link = |name: &String, mac, sandbox| Interface {
            name: name.clone(),
            mac,
            mtu: self.mtu,
            sandbox,
        };
        AddResult {
            interfaces: vec![
                link(&self.host_link, self.host_mac, None),
                link(&self.ifname, self.pod_mac, Some(sandbox.to_owned())),
            ],
            ips: self
                .addresses
                .iter()
                .map(|&address| IpConfig {
                    address: address.into(),
                    gateway: gateway(address),
                    interface: 1,
                })
                .collect(),
            routes: self
                .addresses
                .iter()
                .map(|&address| RouteConfig {
                    destination: everything(address),
                    gateway: gateway(address),
                })
                .collect(),
        }
    }
}

/// The name of the host side: `sw` and 11 hexadecimal digits of SHA-256 over `containerID/ifname`.
pub fn host_link(owner: &OwnerKey) -> String {
    let hex: String = digest(owner).iter().map(|b| format!("{b:02x}")).collect();
    format!("{POD_LINK_PREFIX}{}", &hex[..POD_LINK_DIGITS])
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
