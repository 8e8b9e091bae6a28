//! Choosing an address. Pure: the ledger says what is taken, this says what comes next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::IpNetwork;

/// For how long a freed address is not given out while others are free, so that packets and connection tracking
/// entries of the old pod do not meet the new one.
pub const QUARANTINE: Duration = Duration::from_secs(60);

/// What the ledger knows of an address; one that it does not know is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Taken,
    /// Freed at that time since boot.
    Freed(Duration),
}

/// The next address of a range: round robin behind `last`, past those in quarantine. When only such are left, the
/// one freed longest ago; `None` when all are taken.
pub fn next(
    range: IpNetwork,
    states: &BTreeMap<IpAddr, State>,
    last: Option<IpAddr>,
    now: Duration,
) -> Option<IpAddr> {
    let (first, end) = usable(range)?;
    let start = last
        .map(number)
        .filter(|n| (first..end).contains(n))
        .map_or(first, |n| n + 1);
    let quarantined = |freed: &Duration| now.saturating_sub(*freed) < QUARANTINE;
    // At most one more than is in the ledger needs to be looked at, however large the range is.
    (start..=end)
        .chain(first..start)
        .map(|n| address(range, n))
        .find(|candidate| match states.get(candidate) {
            None => true,
            Some(State::Taken) => false,
            Some(State::Freed(at)) => !quarantined(at),
        })
        .or_else(|| {
            states
                .iter()
                .filter_map(|(address, state)| match state {
                    State::Freed(at) if contains(range, *address) => Some((*at, *address)),
                    _ => None,
                })
                .min()
                .map(|(_, address)| address)
        })
}

/// Whether pods may have this address: in the range, and neither its base address (the overlay's) nor, for IPv4, the
/// broadcast address.
pub fn contains(range: IpNetwork, address: IpAddr) -> bool {
    range.contains(address)
        && usable(range).is_some_and(|(first, end)| (first..=end).contains(&number(address)))
}

/// How many addresses a range has for pods.
pub fn size(range: IpNetwork) -> u128 {
    usable(range).map_or(0, |(first, end)| end - first + 1)
}

/// First and last usable address as numbers; `None` for a range without any.
fn usable(range: IpNetwork) -> Option<(u128, u128)> {
    let (base, top) = match range {
        IpNetwork::V4(v4) => (
            number(v4.network().into()),
            number(v4.broadcast().into()).checked_sub(1)?,
        ),
        IpNetwork::V6(v6) => (number(v6.network().into()), number(v6.broadcast().into())),
    };
    let first = base.checked_add(1)?;
    (first <= top).then_some((first, top))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The inverse of [`number`] within the range's family.
fn address(range: IpNetwork, number: u128) -> IpAddr {
    match range {
        // Numbers of an IPv4 range come from 32-bit addresses.
        IpNetwork::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNetwork::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests;
