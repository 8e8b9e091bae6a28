//! Which entries may not stay.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use seaway_kernel::conntrack::{DEFAULT_ZONE, Flow, UDP};

use super::frontends::{Found, Frontends};

#[cfg(test)]
pub(super) mod tests;

/// The addresses of the node at which node ports are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    addresses: BTreeSet<IpAddr>,
    loopback: bool,
}

impl NodeAddresses {
    /// Of the node's `addresses` those within `served` (`--nodeport-addresses`; without, all), and never loopback.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>, served: Option<&[IpNetwork]>) -> Self {
        let is_served = |addr: &IpAddr| {
            !addr.is_loopback()
                && served.is_none_or(|ranges| ranges.iter().any(|range| range.contains(*addr)))
        };
        Self {
            addresses: addresses.into_iter().filter(is_served).collect(),
            loopback: false,
        }
    }

    /// With all loopback addresses, and the unspecified one, which means the same to a socket.
    #[must_use]
    pub fn and_loopback(self) -> Self {
        Self {
            loopback: true,
            ..self
        }
    }

    pub(super) fn contains(&self, addr: &IpAddr) -> bool {
        self.addresses.contains(addr)
            || (self.loopback && (addr.is_loopback() || addr.is_unspecified()))
    }
}

/// The entries that keep a client at an endpoint which its frontend may not use, or at none although there are some.
pub fn stale(flows: &[Flow], frontends: &Frontends, node: &NodeAddresses) -> Vec<Flow> {
    flows
        .iter()
        .filter(|flow| is_stale(flow, frontends, node))
        .copied()
        .collect()
}

/// Whether an entry has to go. In doubt it stays: what is not UDP, not in the default zone, or not addressed to a
/// frontend of ours belongs to somebody else.
pub fn is_stale(flow: &Flow, frontends: &Frontends, node: &NodeAddresses) -> bool {
    if flow.protocol != UDP || flow.zone != DEFAULT_ZONE {
        return false;
    }
    is_wrong(
        flow.original.destination,
        flow.reply.source,
        frontends,
        node,
    )
}

/// Whether a client that asked `destination` may not be answered by `answers` any more.
pub fn is_wrong(
    destination: SocketAddr,
    answers: SocketAddr,
    frontends: &Frontends,
    node: &NodeAddresses,
) -> bool {
    match frontends.find(destination, node) {
        None => false,
        Some(Found::Live(endpoints)) => {
            endpoints.binary_search(&answers).is_err()
                // Untranslated: the flow began before the frontend, or while the rules were away. Without endpoints there is
                // nowhere else to go.
                && (answers != destination || !endpoints.is_empty())
        }
        Some(Found::Gone(endpoints)) => endpoints.contains(&answers),
    }
}
