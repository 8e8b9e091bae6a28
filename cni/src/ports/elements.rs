//! Which elements an attachment needs. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use seaway_kernel::nftables::{Element, Part, Set};
use sha2::{Digest, Sha256};

use crate::attachment::digits;
use crate::protocol::{Code, Error, OwnerKey, PortMapping, Protocol};

/// A set or map of the table, by what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Protocol and port → the pod's address and port; at any address of the node.
    Any,
    /// Address, protocol, port → the pod's address and port.
    At,
    /// A pod with host ports as source and destination: it talks to itself by way of the node.
    Hairpin,
    /// A pod whose traffic gets the node's address.
    Masquerade,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Any, Self::At, Self::Hairpin, Self::Masquerade];

    /// Its name in the table.
    pub(super) fn name(self, ipv4: bool) -> &'static str {
        match (self, ipv4) {
            (Self::Any, true) => "any4",
            (Self::Any, false) => "any6",
            (Self::At, true) => "at4",
            (Self::At, false) => "at6",
            (Self::Hairpin, true) => "hairpin4",
            (Self::Hairpin, false) => "hairpin6",
            (Self::Masquerade, true) => "masquerade4",
            (Self::Masquerade, false) => "masquerade6",
        }
    }

    /// As the kernel is told.
    pub(super) fn set(self, ipv4: bool) -> Set<'static> {
        const V4: &[Part] = &[Part::Ipv4, Part::Port];
        const V6: &[Part] = &[Part::Ipv6, Part::Port];
        let (key, value): (&[Part], &[Part]) = match (self, ipv4) {
            (Self::Any, true) => (&[Part::Protocol, Part::Port], V4),
            (Self::Any, false) => (&[Part::Protocol, Part::Port], V6),
            (Self::At, true) => (&[Part::Ipv4, Part::Protocol, Part::Port], V4),
            (Self::At, false) => (&[Part::Ipv6, Part::Protocol, Part::Port], V6),
            (Self::Hairpin, true) => (&[Part::Ipv4, Part::Ipv4], &[]),
            (Self::Hairpin, false) => (&[Part::Ipv6, Part::Ipv6], &[]),
            (Self::Masquerade, true) => (&[Part::Ipv4], &[]),
            (Self::Masquerade, false) => (&[Part::Ipv6], &[]),
        };
        Set {
            name: self.name(ipv4),
            key,
            value,
        }
    }
}

impl Kind {
    /// The protocol (`IPPROTO_*`) of a host port: it stands before the port at the key's end.
    pub(super) fn protocol(self, element: &Element) -> Option<u8> {
        match self {
            Self::Any | Self::At => element.key.len().checked_sub(8).map(|at| element.key[at]),
            Self::Hairpin | Self::Masquerade => None,
        }
    }
}

/// Whose an element is, as its comment says: the attachment's digits and the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    digits: String,
    network: String,
}

impl Tag {
    /// Of an attachment to a network.
    pub fn new(owner: &OwnerKey, network: &str) -> Self {
        Self {
            digits: digits(owner),
            network: short(network),
        }
    }

    /// The element's comment.
    pub(super) fn comment(&self) -> String {
        format!("{} {}", self.digits, self.network)
    }
}

/// The digits in an element's comment, if it is of that network.
pub(super) fn digits_of<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    let (digits, of) = comment.split_once(' ')?;
    (of == short(network)).then_some(digits)
}

/// A comment has room for 120 bytes; what stands for a longer name is no shorter name.
fn short(network: &str) -> String {
    if network.len() <= 80 {
        return network.to_owned();
    }
    let digest: String = Sha256::digest(network.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}~{}", &network[..32], &digest[..40])
}

/// What an attachment needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub mappings: Vec<PortMapping>,
    pub masquerade: bool,
    /// Of the pod.
    pub addresses: Vec<IpAddr>,
}

impl Wanted {
    /// Fails if a host port leads nowhere, or to two ports of the pod: then nobody could say which is meant.
    pub fn checked(self) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(Code::InvalidConfig, message);
        if !self.mappings.is_empty() && self.addresses.is_empty() {
            let message = "portMappings: the pod has no address that a host port could lead to";
            return Err(invalid(message.to_owned()));
        }
        for (index, one) in self.mappings.iter().enumerate() {
            let at = |mapping: &PortMapping| mapping.host_ip.filter(|ip| !ip.is_unspecified());
            let of_both = |other: &PortMapping| match (one.host_ip, other.host_ip) {
                (Some(a), Some(b)) => a.is_ipv4() == b.is_ipv4(),
                _ => true,
            };
            let contradicts = |other: &&PortMapping| {
                (one.host_port, one.protocol, at(one))
                    == (other.host_port, other.protocol, at(other))
                    && of_both(other)
                    && one.pod_port != other.pod_port
            };
            if let Some(other) = self.mappings[..index].iter().find(contradicts) {
                return Err(invalid(format!(
                    "portMappings: hostPort {} leads to containerPort {} and to {}",
                    one.host_port, other.pod_port, one.pod_port
                )));
            }
        }
        Ok(self)
    }

    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty() && !self.masquerade
    }

    /// The elements, each with where it belongs: the kind of set, and whether it is of IPv4. A port leads to the pod's
    /// first address of a family.
    pub fn elements(&self, tag: &Tag) -> Vec<(Kind, bool, Element)> {
        let mut elements = Vec::new();
        let mut seen = BTreeSet::new();
        let comment = tag.comment();
        let mut push = |kind, ipv4, key: Vec<u8>, value: Vec<u8>| {
            let comment = comment.clone();
            let element = Element {
                key,
                value,
                comment,
            };
            if seen.insert((kind, ipv4, element.clone())) {
                elements.push((kind, ipv4, element));
            }
        };
        for ipv4 in [true, false] {
            let Some(pod) = self.addresses.iter().find(|ip| ip.is_ipv4() == ipv4) else {
                continue;
            };
            let bytes = octets(*pod);
            for mapping in &self.mappings {
                if mapping.host_ip.is_some_and(|ip| ip.is_ipv4() != ipv4) {
                    continue;
                }
                let at = mapping.host_ip.filter(|ip| !ip.is_unspecified());
                let mut key = at.map(octets).unwrap_or_default();
                key.extend([number(mapping.protocol), 0, 0, 0]);
                key.extend(port(mapping.host_port));
                let value = [bytes.clone(), port(mapping.pod_port)].concat();
                let kind = if at.is_some() { Kind::At } else { Kind::Any };
                push(kind, ipv4, key, value);
                push(Kind::Hairpin, ipv4, bytes.repeat(2), Vec::new());
            }
        }
        if self.masquerade {
            for ip in &self.addresses {
                push(Kind::Masquerade, ip.is_ipv4(), octets(*ip), Vec::new());
            }
        }
        elements
    }
}

/// `IPPROTO_*`.
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// In network order, filled up to a register.
fn port(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}

#[cfg(test)]
mod tests;
