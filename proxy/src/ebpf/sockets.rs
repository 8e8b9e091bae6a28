//! Closing UDP sockets whose backend is gone.
//!
//! A connected UDP socket is translated once, at `connect()`, and would go on sending to a backend that is gone for ever: no
//! packet of it passes a program of ours that could know better. So such sockets are ended (`SOCK_DESTROY`), wherever
//! they are: the program behind one is told `ECONNABORTED`, or `EDESTADDRREQ` when it sends first, and connects anew.
//! Unconnected sockets get another backend with their next datagram by themselves.
//!
//! Ended is what our own map says that we translated, by the kernel's number of the socket, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use seaway_ebpf_abi::{SocketKey, SocketValue};
use seaway_kernel::sock_diag::{SocketFamily, UdpSocket};
use seaway_kernel::{Error, NetNs, SockDiag};

use super::config::pin_dir;
use super::counted::{self, Counted};
use crate::conntrack::{Frontends, NodeAddresses, Place, Ties, is_wrong};

#[cfg(test)]
mod tests;

/// What a socket is found by in its namespace: the kernel's number of it, and where it sends to.
type Bound = (u64, SocketAddr);

/// The UDP sockets that the hooks have translated, as a place where clients stay bound. While nothing is pinned (another
/// mode serves) there are none.
#[derive(Debug)]
pub struct Sockets {
    pin_dir: PathBuf,
    metrics: Metrics,
    /// The kernel can end sockets.
    able: bool,
}

/// Handles to the metrics.
#[derive(Debug, Clone, Default)]
struct Metrics {
    closed: Counter,
    failures: Counter,
}

impl Sockets {
    /// Of the data plane that pins its maps below `bpffs_root`.
    pub fn new(bpffs_root: &Path, registry: &mut Registry) -> Self {
        let metrics = Metrics::default();
        let ours = registry.sub_registry_with_prefix("seaway_proxy_udp_sockets");
        ours.register(
            "closed",
            "UDP sockets ended because their backend is gone",
            metrics.closed.clone(),
        );
        ours.register(
            "failures",
            "Attempts to end UDP sockets of backends that are gone that failed and are repeated",
            metrics.failures.clone(),
        );
        Self {
            pin_dir: pin_dir(bpffs_root),
            metrics,
            able: able(),
        }
    }

    /// Ends those sockets of a namespace that are still what they were when they were remembered.
    fn close(netns: &NetNs, bound: &BTreeSet<Bound>) -> Result<usize, Error> {
        let mut diag = SockDiag::in_namespace(netns)?;
        let port = common_port(bound);
        let mut closed = 0;
        for family in [SocketFamily::V4, SocketFamily::V6] {
            // An IPv4 backend may belong to an IPv6 socket, but not the other way round.
            if family == SocketFamily::V4 && bound.iter().all(|(_, to)| to.is_ipv6()) {
                continue;
            }
            for socket in diag.connected_udp(family, port)? {
                if is_bound(&socket, bound) && diag.destroy(&socket)? {
                    tracing::debug!(local = %socket.local, backend = %socket.peer, "ended a UDP socket");
                    closed += 1;
                }
            }
        }
        Ok(closed)
    }
}

impl Place for Sockets {
    fn has_loopback(&self) -> bool {
        true
    }

    fn clean(&self, ties: &Ties<'_>) -> anyhow::Result<()> {
        let started = Instant::now();
        let table: Option<Counted<SocketKey, SocketValue>> =
            Counted::open(&self.pin_dir, &counted::SOCKETS_UDP)?;
        let Some(table) = table.filter(|_| self.able) else {
            return Ok(());
        };
        let entries = table.entries()?;
        let stale = ties.ask(|frontends, node| stale(&entries, frontends, node));
        if stale.is_empty() {
            return Ok(());
        }
        let mut wanted = by_namespace(&stale);
        let (mut closed, mut refused) = (0, None);
        NetNs::visit_all(|netns| {
            // One that is gone since it was listed has no sockets either.
            let bound = netns
                .cookie()
                .ok()
                .and_then(|cookie| wanted.remove(&cookie));
            if let Some(bound) = bound {
                match Self::close(&netns, &bound) {
                    Ok(count) => closed += count,
                    Err(error) => refused = Some(error),
                }
            }
            match wanted.is_empty() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        self.metrics.closed.inc_by(closed as u64);
        tracing::debug!(
            closed,
            remembered = stale.len(),
            namespaces_not_found = wanted.len(),
            ms = started.elapsed().as_millis(),
            "looked for UDP sockets of backends that are gone"
        );
        if let Some(error) = refused {
            return Err(error.into());
        }
        // What was not found is closed since long. The name of the frontend goes with it.
        let keys: Vec<SocketKey> = stale.iter().map(|(key, _)| *key).collect();
        table.delete_all(&keys)?;
        Ok(())
    }

    fn failed(&self) {
        self.metrics.failures.inc();
    }
}

/// Whether the kernel can end sockets; says so if it cannot.
fn able() -> bool {
    let why = match SockDiag::open().and_then(|mut diag| diag.can_destroy()) {
        Ok(true) => return true,
        Ok(false) => "the kernel lacks CONFIG_INET_UDP_DIAG or CONFIG_INET_DIAG_DESTROY".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!("connected UDP sockets will stay bound to backends that are gone: {why}");
    false
}

/// The entries whose socket may not use its backend any more.
fn stale(
    entries: &[(SocketKey, SocketValue)],
    frontends: &Frontends,
    node: &NodeAddresses,
) -> Vec<(SocketKey, SocketValue)> {
    let is_stale = |(key, value): &&(SocketKey, SocketValue)| {
        let asked = SocketAddr::new(value.addr.ip(), u16::from_be(value.port));
        is_wrong(asked, backend(key), frontends, node)
    };
    entries.iter().filter(is_stale).copied().collect()
}

fn backend(key: &SocketKey) -> SocketAddr {
    SocketAddr::new(key.addr.ip(), u16::from_be(key.port))
}

fn by_namespace(stale: &[(SocketKey, SocketValue)]) -> BTreeMap<u64, BTreeSet<Bound>> {
    let mut namespaces: BTreeMap<u64, BTreeSet<Bound>> = BTreeMap::new();
    for (key, value) in stale {
        let bound = (key.cookie, backend(key));
        namespaces.entry(value.netns).or_default().insert(bound);
    }
    namespaces
}

/// The port of all of these backends, by which the kernel can sift; `None` if they differ.
fn common_port(bound: &BTreeSet<Bound>) -> Option<u16> {
    let ports: BTreeSet<u16> = bound.iter().map(|(_, backend)| backend.port()).collect();
    match ports.len() {
        1 => ports.first().copied(),
        _ => None,
    }
}

/// A socket that was connected elsewhere meanwhile has the same number, but another peer.
fn is_bound(socket: &UdpSocket, bound: &BTreeSet<Bound>) -> bool {
    bound.contains(&(socket.cookie, socket.peer))
}
