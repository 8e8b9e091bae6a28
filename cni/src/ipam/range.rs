//! Ranges of addresses, and what of a subnet may be given to a pod. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::protocol::{Code, Error, RangeConfig};

/// Addresses of one subnet that pods may have: from `first` to `last`, without the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub subnet: IpNetwork,
    pub first: IpAddr,
    pub last: IpAddr,
    pub gateway: Option<IpAddr>,
}

impl Range {
    /// A node's pod CIDR: neither the base address (the overlay's) nor, for IPv4, the broadcast address. `None` for a
    /// CIDR without any other.
    pub fn of_node(cidr: IpNetwork) -> Option<Self> {
        let (first, last) = usable(cidr)?;
        Some(Self {
            subnet: cidr,
            first,
            last,
            gateway: None,
        })
    }

    /// A range of the config, with host-local's defaults: the gateway is the first address of the subnet, and the range
    /// is all the rest.
    pub fn of_config(config: &RangeConfig) -> Result<Self, Error> {
        let subnet = config.subnet;
        if subnet.ip() != subnet.network() {
            return Err(invalid(&format!(
                "subnet {subnet} has host bits set; expected {}/{}",
                subnet.network(),
                subnet.prefix()
            )));
        }
        let none = || {
            invalid(&format!(
                "subnet {subnet} is too small: no address is left for a pod"
            ))
        };
        let (lowest, highest) = usable(subnet).ok_or_else(none)?;
        let gateway = config.gateway.unwrap_or(lowest);
        let range = Self {
            subnet,
            first: config.start.unwrap_or(lowest),
            last: config.end.unwrap_or(highest),
            gateway: Some(gateway),
        };
        for (name, address) in [
            ("rangeStart", range.first),
            ("rangeEnd", range.last),
            ("gateway", gateway),
        ] {
            if !subnet.contains(address) {
                return Err(invalid(&format!(
                    "{name} {address} is not in subnet {subnet}"
                )));
            }
        }
        for (name, address) in [("rangeStart", range.first), ("rangeEnd", range.last)] {
            if !(number(lowest)..=number(highest)).contains(&number(address)) {
                return Err(invalid(&format!(
                    "{name} {address} is the network's or the broadcast address of subnet {subnet}"
                )));
            }
        }
        if number(range.first) > number(range.last) {
            return Err(invalid(&format!(
                "rangeStart {} is behind rangeEnd {}",
                range.first, range.last
            )));
        }
        if range.size() == 0 {
            return Err(none());
        }
        Ok(range)
    }

    /// Whether a pod may have this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4()
            && (number(self.first)..=number(self.last)).contains(&number(address))
            && self.gateway != Some(address)
    }

    /// How many addresses there are for pods.
    pub fn size(&self) -> u128 {
        let all = number(self.last)
            .saturating_sub(number(self.first))
            .saturating_add(1);
        let gateway = self.gateway.is_some_and(|gateway| {
            (number(self.first)..=number(self.last)).contains(&number(gateway))
        });
        all - u128::from(gateway)
    }

    /// The addresses from one on to the end, then those before it. Lazy: a range may have 2^64 of them.
    pub fn behind(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + use<> {
        let range = *self;
        let (first, end) = (number(self.first), number(self.last));
        let start = last
            .filter(|last| last.is_ipv4() == range.first.is_ipv4())
            .map(number)
            .filter(|n| (first..end).contains(n))
            .map_or(first, |n| n + 1);
        (start..=end)
            .chain(first..start)
            .map(move |n| range.address(n))
            .filter(move |address| range.gateway != Some(*address))
    }

    /// Whether both have an address in common.
    fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4()
            && number(self.first) <= number(other.last)
            && number(other.first) <= number(self.last)
    }

    /// The inverse of [`number`] within the range's family.
    fn address(&self, number: u128) -> IpAddr {
        match self.first {
            // Numbers of an IPv4 range come from 32-bit addresses.
            IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from(number).into(),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if usable(self.subnet).is_some_and(|(first, last)| first == self.first && last == self.last)
        {
            return write!(f, "{}", self.subnet);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The lists of the config: one address of each is given out. None may overlap another.
pub fn of_config(lists: &[Vec<RangeConfig>]) -> Result<Vec<Vec<Range>>, Error> {
    let sets: Vec<Vec<Range>> = lists
        .iter()
        .map(|list| list.iter().map(Range::of_config).collect())
        .collect::<Result<_, _>>()?;
    for set in &sets {
        let Some(first) = set.first() else {
            return Err(invalid("a list of ranges is empty"));
        };
        if let Some(other) = set
            .iter()
            .find(|r| r.first.is_ipv4() != first.first.is_ipv4())
        {
            return Err(invalid(&format!(
                "the ranges {first} and {other} of one list are of different families"
            )));
        }
    }
    let all: Vec<_> = sets.iter().flatten().collect();
    for (index, one) in all.iter().enumerate() {
        if let Some(other) = all[index + 1..].iter().find(|other| one.overlaps(other)) {
            return Err(invalid(&format!("the ranges {one} and {other} overlap")));
        }
    }
    Ok(sets)
}

/// First and last address of a subnet that can be a host's; `None` for a subnet without any.
fn usable(subnet: IpNetwork) -> Option<(IpAddr, IpAddr)> {
    let (base, top) = match subnet {
        IpNetwork::V4(v4) => (
            number(v4.network().into()),
            number(v4.broadcast().into()).checked_sub(1)?,
        ),
        IpNetwork::V6(v6) => (number(v6.network().into()), number(v6.broadcast().into())),
    };
    let first = base.checked_add(1)?;
    let address = |n: u128| -> IpAddr {
        match subnet {
            IpNetwork::V4(_) => Ipv4Addr::from(n as u32).into(),
            IpNetwork::V6(_) => Ipv6Addr::from(n).into(),
        }
    };
    (first <= top).then(|| (address(first), address(top)))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Code::InvalidConfig, format!("ipam: {message}"))
}

#[cfg(test)]
mod tests;
