//! At which addresses of the node its node ports answer.

use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use super::ConfigError;
use super::file::ConfigFile;

/// One item of `--nodeport-addresses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePortAddress {
    /// `primary`: the addresses of the Node object.
    Primary,
    /// `all`: every address but loopback.
    All,
    Cidr(IpNetwork),
}

const NO_LOOPBACK: &str =
    "not offered: node ports do not answer on loopback addresses; use an address of the node";

impl FromStr for NodePortAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            "all" => Ok(Self::All),
            "localhost" => Err(NO_LOOPBACK.to_owned()),
            // A bare address is no CIDR, as in kube-proxy.
            cidr if cidr.contains('/') => match cidr.parse::<IpNetwork>() {
                Ok(cidr) if cidr.ip().is_loopback() => Err(NO_LOOPBACK.to_owned()),
                Ok(cidr) => Ok(Self::Cidr(cidr)),
                Err(error) => Err(error.to_string()),
            },
            _ => Err("expected primary, all, or a CIDR such as 10.0.0.0/8".to_owned()),
        }
    }
}

/// All items together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// Every address of the node but loopback, also those that come up later.
    #[default]
    All,
    Some {
        primary: bool,
        cidrs: Vec<IpNetwork>,
    },
}

impl From<Vec<NodePortAddress>> for NodePortAddresses {
    fn from(items: Vec<NodePortAddress>) -> Self {
        if items.is_empty() || items.contains(&NodePortAddress::All) {
            return Self::All;
        }
        Self::Some {
            primary: items.contains(&NodePortAddress::Primary),
            cidrs: items
                .iter()
                .filter_map(|item| match item {
                    NodePortAddress::Cidr(cidr) => Some(*cidr),
                    _ => None,
                })
                .collect(),
        }
    }
}

impl NodePortAddresses {
    pub(super) fn of_file(file: &ConfigFile) -> Result<Self, ConfigError> {
        let items = file
            .list("nodePortAddresses")
            .into_iter()
            .map(|text| {
                text.parse().map_err(|problem| ConfigError::Setting {
                    setting: "nodePortAddresses",
                    problem: format!("{text:?}: {problem}"),
                })
            })
            .collect::<Result<Vec<NodePortAddress>, _>>()?;
        Ok(items.into())
    }

    /// Whether the Node object has to be known.
    pub fn needs_node(&self) -> bool {
        matches!(self, Self::Some { primary: true, .. })
    }

    /// As networks, `primary` being these addresses; `None` for all.
    pub fn networks(&self, primary: &[IpAddr]) -> Option<Vec<IpNetwork>> {
        match self {
            Self::All => None,
            Self::Some {
                primary: wanted,
                cidrs,
            } => {
                let mut networks = cidrs.clone();
                if *wanted {
                    networks.extend(first_of_each_family(primary).map(IpNetwork::from));
                }
                Some(networks)
            }
        }
    }
}

/// kube-proxy's primary addresses: the first `InternalIP` of each family.
fn first_of_each_family(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let v4 = addresses.iter().find(|ip| ip.is_ipv4());
    let v6 = addresses.iter().find(|ip| ip.is_ipv6());
    v4.into_iter().chain(v6).copied()
}
