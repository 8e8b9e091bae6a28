//! Where the addresses of a call come from: the node's pod CIDRs, ranges of the config, or addresses in it.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::{Lease, Ledger, Range, of_config};
use crate::node::NodeFile;
use crate::protocol::{
    Code, Dns, Error, Extras, Ipam, NetworkConfig, RuntimeConfig, StaticAddress,
};

/// Addresses that are ours to give out, and what comes with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where the ledgers are.
    pub root: PathBuf,
    /// The network's name.
    pub network: String,
    pool: Pool,
    extras: Extras,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pool {
    /// One address of each list.
    Ranges(Vec<Vec<Range>>),
    Static(Vec<StaticAddress>),
}

/// An address for a pod, as its subnet sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    pub address: IpNetwork,
    /// The subnet's gateway; none where the pod's gateway is the plugin's matter.
    pub gateway: Option<IpAddr>,
}

impl Source {
    /// Follows from the config and what the runtime asks for; `None` if another plugin gives out addresses, or nobody.
    /// The node file is read only where its ranges matter.
    pub fn new(config: &NetworkConfig, runtime: &RuntimeConfig) -> Result<Option<Self>, Error> {
        let mut root = Ledger::root(&config.state_dir);
        let asked = of_config(&runtime.ip_ranges)?;
        let (pool, extras) = match config.ipam()? {
            Ipam::Delegate(_) | Ipam::None => return Ok(None),
            Ipam::Static { addresses, extras } => (Pool::Static(addresses), extras),
            Ipam::Ranges {
                ranges,
                data_dir,
                extras,
            } => {
                if let Some(dir) = data_dir {
                    root = dir;
                }
                // Checked together, since none may overlap another.
                let all: Vec<_> = runtime.ip_ranges.iter().chain(&ranges).cloned().collect();
                if all.is_empty() {
                    let message = "ipam: no ranges: expected ranges or a subnet";
                    return Err(Error::new(Code::InvalidConfig, message));
                }
                (Pool::Ranges(of_config(&all)?), extras)
            }
            Ipam::Node(extras) => {
                let ranges = if asked.is_empty() {
                    node_ranges(&NodeFile::read(&config.run_dir)?)?
                } else {
                    asked
                };
                (Pool::Ranges(ranges), extras)
            }
        };
        Ok(Some(Self {
            root,
            network: config.name.clone(),
            pool,
            extras,
        }))
    }

    /// Where the ledger of a config is, whatever else the config says.
    pub fn root_of(config: &NetworkConfig) -> PathBuf {
        match config.ipam() {
            Ok(Ipam::Ranges {
                data_dir: Some(dir),
                ..
            }) => dir,
            _ => Ledger::root(&config.state_dir),
        }
    }

    /// Gives the lease's owner its addresses; the requested ones, where there are any.
    pub fn assign(
        &self,
        lease: &Lease,
        requested: &[IpNetwork],
        now: Duration,
    ) -> Result<Vec<Assigned>, Error> {
        let addresses: Vec<IpAddr> = requested.iter().map(IpNetwork::ip).collect();
        match &self.pool {
            Pool::Ranges(lists) => {
                let ledger = Ledger::open(&self.root, &self.network)?;
                let chosen = ledger.allocate(lease, lists, &addresses, now)?;
                Ok(chosen.into_iter().map(|ip| in_subnet(lists, ip)).collect())
            }
            Pool::Static(configured) => {
                let assigned = static_addresses(configured, requested)?;
                let addresses: Vec<_> = assigned.iter().map(|a| a.address.ip()).collect();
                Ledger::open(&self.root, &self.network)?.reserve(lease, &addresses)?;
                Ok(assigned)
            }
        }
    }

    /// Says which ranges have no address left.
    pub fn exhausted(&self, now: Duration) -> Result<Option<String>, Error> {
        let Pool::Ranges(lists) = &self.pool else {
            return Ok(None);
        };
        // One that is not there yet has all of them, and is not made by asking.
        let Some(ledger) = Ledger::open_existing(&self.root, &self.network)? else {
            return Ok(None);
        };
        Ok(ledger.exhausted(lists, now)?.map(|list| {
            let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
            texts.join(", ")
        }))
    }

    /// What the config says of routes in the pod.
    pub fn routes(&self) -> &[crate::protocol::RouteConfig] {
        &self.extras.routes
    }

    /// How names are resolved: as the section says, or the resolver file that it names.
    pub fn dns(&self) -> Result<Option<Dns>, Error> {
        if let Some(path) = &self.extras.resolv_conf {
            let text = fs::read_to_string(path).map_err(|e| {
                let message = format!("cannot read ipam.resolvConf {}: {e}", path.display());
                Error::new(Code::Io, message)
            })?;
            return Ok(Some(resolver(&text)));
        }
        Ok(self.extras.dns.clone())
    }
}

fn node_ranges(node: &NodeFile) -> Result<Vec<Vec<Range>>, Error> {
    node.pod_cidrs
        .iter()
        .map(|&cidr| {
            Range::of_node(cidr)
                .map(|range| vec![range])
                .ok_or_else(|| {
                    let message = format!("the node's pod CIDR {cidr} has no address for pods");
                    Error::new(Code::Exhausted, message)
                })
        })
        .collect()
}

fn in_subnet(lists: &[Vec<Range>], ip: IpAddr) -> Assigned {
    let range = lists.iter().flatten().find(|range| range.contains(ip));
    let prefix = range
        .map(|range| range.subnet.prefix())
        .filter(|_| range.is_some_and(|range| range.gateway.is_some()));
    Assigned {
        address: prefix
            .and_then(|prefix| IpNetwork::new(ip, prefix).ok())
            .unwrap_or_else(|| ip.into()),
        gateway: range.and_then(|range| range.gateway),
    }
}

/// Requested addresses stand in place of the configured ones, with the gateway of whose subnet they are.
fn static_addresses(
    configured: &[StaticAddress],
    requested: &[IpNetwork],
) -> Result<Vec<Assigned>, Error> {
    let gateway_of = |address: &IpNetwork| {
        let same = configured
            .iter()
            .find(|one| one.address.contains(address.ip()));
        same.and_then(|one| one.gateway)
    };
    let assigned: Vec<_> = if requested.is_empty() {
        let of = |one: &StaticAddress| Assigned {
            address: one.address,
            gateway: one.gateway,
        };
        configured.iter().map(of).collect()
    } else {
        let of = |address: &IpNetwork| Assigned {
            address: *address,
            gateway: gateway_of(address),
        };
        requested.iter().map(of).collect()
    };
    if assigned.is_empty() {
        let message = "ipam: no address: expected ipam.addresses, or one that is asked for";
        return Err(Error::new(Code::InvalidConfig, message));
    }
    Ok(assigned)
}

/// `resolv.conf(5)`, as far as results have room for it.
fn resolver(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let mut words = words.map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.extend(words.next()),
            "domain" => dns.domain = words.next().unwrap_or_default(),
            "search" => dns.search.extend(words),
            "options" => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}
