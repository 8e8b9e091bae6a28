//! The network namespaces of the machine, by what entries of ours call them: a cookie where a socket sends, an address where
//! a packet comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::ControlFlow;

use seaway_kernel::sock_diag::{SocketFamily, UdpSocket};
use seaway_kernel::{Error, NetNs, SockDiag};

/// A namespace at one moment.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) netns: NetNs,
    pub(super) cookie: u64,
    /// Those that others reach it by.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Space {
    /// All of them. What goes meanwhile is left out. Blocks.
    pub(super) fn all() -> Vec<Self> {
        let mut spaces = Vec::new();
        NetNs::visit_all(|netns| {
            spaces.extend(Self::look(netns));
            ControlFlow::Continue(())
        });
        spaces
    }

    fn look(netns: NetNs) -> Result<Self, Error> {
        let cookie = netns.cookie()?;
        let addresses = {
            let _inside = netns.enter()?;
            addresses()
        };
        Ok(Self {
            netns,
            cookie,
            addresses,
        })
    }

    /// Its UDP sockets that are not connected; none if it has gone. Blocks.
    pub(super) fn unconnected(&self) -> Vec<UdpSocket> {
        let list = || -> Result<Vec<UdpSocket>, Error> {
            let mut diag = SockDiag::in_namespace(&self.netns)?;
            let mut sockets = diag.unconnected_udp(SocketFamily::V4)?;
            sockets.extend(diag.unconnected_udp(SocketFamily::V6)?);
            Ok(sockets)
        };
        list().unwrap_or_else(|error| {
            tracing::debug!(%error, namespace = %self.netns, "cannot list UDP sockets");
            Vec::new()
        })
    }
}

/// Which namespaces have an address. Usually one; a machine with several nodes on it may use an address twice.
pub(super) fn by_address(spaces: &[Space]) -> BTreeMap<IpAddr, Vec<u64>> {
    let mut namespaces: BTreeMap<IpAddr, Vec<u64>> = BTreeMap::new();
    for space in spaces {
        for ip in &space.addresses {
            namespaces.entry(*ip).or_default().push(space.cookie);
        }
    }
    namespaces
}

/// Those of the calling thread's namespace that others reach it by.
pub(super) fn addresses() -> BTreeSet<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let ips = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
    });
    ips.filter(|ip| !ip.is_loopback()).collect()
}
