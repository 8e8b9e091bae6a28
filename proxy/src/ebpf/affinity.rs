//! Clients that stay with their backend (`sessionAffinity: ClientIP`): until their time is over, and from the lists that rules keep
//! to the map of the programs, and back.
//!
//! Rules know a client by its address. Programs know a socket by its network namespace, since it has no address yet, and packets by
//! their address; so that a namespace gets what its addresses have, and gives them what it has.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use seaway_ebpf_abi::{AffinityKey, AffinityValue};
use seaway_kernel::recent::{self, Remembered};
use seaway_model::{Desired, Protocol};

use super::counted::{self, Counted};
use super::error::EbpfError;
use super::image::Image;
use super::plane::EbpfDataplane;
use super::spaces::{Space, by_address};
use super::wanted::affinity_id;
use super::{sys, tables::Tables};
use crate::iptables::names;
use crate::task::blocking;

#[cfg(test)]
mod tests;

/// A namespace with more addresses than this is not asked for under each of them: a list has 100 places.
const ADDRESSES: usize = 16;

/// The most that `timeoutSeconds` may be (pkg/apis/core/validation of Kubernetes).
const LONGEST: Duration = Duration::from_secs(86_400);

/// One endpoint of a Service port with affinity.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    affinity: u64,
    addr: SocketAddr,
    /// The name of the list that rules keep.
    list: Arc<str>,
    timeout: Duration,
}

/// All that the programs carry.
fn endpoints(desired: &Desired) -> Vec<Endpoint> {
    let mut all = BTreeMap::new();
    for (service, rules) in &desired.services {
        for rule in &rules.ports {
            let Some(timeout) = rule.affinity.filter(|_| rule.protocol != Protocol::Sctp) else {
                continue;
            };
            let affinity = affinity_id(service, rule);
            let owner = names::owner(service, rule);
            for backend in rule.cluster.iter().chain(&rule.local) {
                let endpoint = Endpoint {
                    affinity,
                    addr: backend.addr,
                    list: names::affinity_list(&owner, &backend.to_string()),
                    timeout,
                };
                all.insert((affinity, backend.addr), endpoint);
            }
        }
    }
    all.into_values().collect()
}

/// What the programs have to know of the clients on lists. Of a client on two lists the one that was there last counts.
fn to_programs(
    listed: &[(&Endpoint, Vec<Remembered>)],
    namespaces: &BTreeMap<IpAddr, Vec<u64>>,
    now: u64,
) -> BTreeMap<AffinityKey, AffinityValue> {
    let mut clients: BTreeMap<AffinityKey, AffinityValue> = BTreeMap::new();
    for (endpoint, remembered) in listed {
        let affinity = endpoint.affinity;
        for known in remembered.iter().filter(|r| r.age < endpoint.timeout) {
            let age = u64::try_from(known.age.as_nanos()).unwrap_or(u64::MAX);
            let value = AffinityValue {
                last_used: now.saturating_sub(age),
                addr: endpoint.addr.ip().into(),
                port: endpoint.addr.port().to_be(),
                pad: [0; 6],
            };
            let spaces = namespaces.get(&known.address).into_iter().flatten();
            let spaces = spaces.map(|cookie| AffinityKey::of_namespace(*cookie));
            for client in spaces.chain([known.address.into()]) {
                let at = clients.entry(AffinityKey { affinity, client });
                let last = at.or_insert(value);
                if last.last_used < value.last_used {
                    *last = value;
                }
            }
        }
    }
    clients
}

/// What becomes of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Edit {
    /// Those whom the endpoint has, the last at the end.
    on: Vec<IpAddr>,
    /// Those whom another endpoint of the Service port has: a packet that went past the programs may have put them there.
    off: Vec<IpAddr>,
}

/// What belongs on the lists, and what does not.
fn to_rules(
    endpoints: &[Endpoint],
    entries: &[(AffinityKey, AffinityValue)],
    spaces: &[Space],
    now: u64,
) -> BTreeMap<Arc<str>, Edit> {
    let known: BTreeMap<(u64, SocketAddr), &Endpoint> = endpoints
        .iter()
        .map(|endpoint| ((endpoint.affinity, endpoint.addr), endpoint))
        .collect();
    let mut last: BTreeMap<(u64, IpAddr), (u64, &Endpoint)> = BTreeMap::new();
    for (key, value) in entries {
        let addr = SocketAddr::new(value.addr.ip(), u16::from_be(value.port));
        let Some(endpoint) = known.get(&(key.affinity, addr)) else {
            continue;
        };
        let age = Duration::from_nanos(now.saturating_sub(value.last_used));
        if age >= endpoint.timeout {
            continue;
        }
        for ip in addresses_of(key, spaces, addr.is_ipv6()) {
            let at = last.entry((key.affinity, ip));
            let at = at.or_insert((value.last_used, endpoint));
            if at.0 < value.last_used {
                *at = (value.last_used, endpoint);
            }
        }
    }
    let mut clients: Vec<(u64, IpAddr, &Endpoint)> = last
        .into_iter()
        .map(|((_, ip), (used, endpoint))| (used, ip, endpoint))
        .collect();
    clients.sort_unstable_by_key(|(used, ip, _)| (*used, *ip));
    let mut siblings: BTreeMap<u64, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        siblings
            .entry(endpoint.affinity)
            .or_default()
            .push(endpoint);
    }
    let mut edits: BTreeMap<Arc<str>, Edit> = BTreeMap::new();
    for (_, ip, its) in clients {
        for endpoint in siblings.get(&its.affinity).into_iter().flatten() {
            let edit = edits.entry(endpoint.list.clone()).or_default();
            match endpoint.list == its.list {
                true => edit.on.push(ip),
                false => edit.off.push(ip),
            }
        }
    }
    edits
}

/// For how long the Service ports with affinity remember a client.
pub(super) fn timeouts(image: &Image) -> BTreeMap<u64, Duration> {
    let sticky = image
        .frontends
        .values()
        .filter(|frontend| frontend.affinity_timeout != 0);
    sticky
        .map(|frontend| {
            let timeout = Duration::from_secs(frontend.affinity_timeout.into());
            (frontend.affinity, timeout)
        })
        .collect()
}

/// Clients whose time is over: nobody asks for them any more, and they would push out others. A port that is gone may come back
/// and know its clients.
fn forgotten(
    entries: &[(AffinityKey, AffinityValue)],
    timeouts: &BTreeMap<u64, Duration>,
    now: u64,
) -> Vec<AffinityKey> {
    let is_over = |(key, value): &&(AffinityKey, AffinityValue)| {
        let timeout = timeouts.get(&key.affinity).unwrap_or(&LONGEST);
        Duration::from_nanos(now.saturating_sub(value.last_used)) >= *timeout
    };
    let over = entries.iter().filter(is_over);
    over.map(|(key, _)| *key).collect()
}

/// Deletes the clients whose time is over from the map pinned in `dir`; how many there were. Blocks.
pub(super) fn forget(
    dir: &Path,
    timeouts: &BTreeMap<u64, Duration>,
    now: u64,
) -> Result<usize, EbpfError> {
    let Some(table) = Counted::open(dir, &counted::AFFINITY)? else {
        return Ok(0);
    };
    table.delete_all(&forgotten(&table.entries()?, timeouts, now))
}

/// Under which addresses rules meet a client.
fn addresses_of(key: &AffinityKey, spaces: &[Space], v6: bool) -> Vec<IpAddr> {
    let Some(cookie) = key.namespace() else {
        return vec![key.client.ip()];
    };
    let spaces = spaces.iter().filter(|space| space.cookie == cookie);
    let addresses = spaces.flat_map(|space| &space.addresses).copied();
    let of_family = addresses.filter(|ip| match ip {
        IpAddr::V4(_) => !v6,
        IpAddr::V6(ip) => v6 && !ip.is_unicast_link_local(),
    });
    of_family.take(ADDRESSES).collect()
}

impl EbpfDataplane {
    /// Has the programs remember the clients that rules remember, unless they have seen one later.
    ///
    /// # Errors
    ///
    /// If a list cannot be read or the map not be written.
    pub(super) async fn remember_clients_of_rules(
        &self,
        tables: &Tables,
        desired: &Desired,
    ) -> Result<(), EbpfError> {
        let endpoints = endpoints(desired);
        let netns = self.netns.clone();
        let clients = blocking(move || -> Result<_, EbpfError> {
            let mut listed = Vec::new();
            {
                let _inside = netns.enter()?;
                for endpoint in &endpoints {
                    let clients = recent::read(&endpoint.list)?.unwrap_or_default();
                    if !clients.is_empty() {
                        listed.push((endpoint, clients));
                    }
                }
            }
            if listed.is_empty() {
                return Ok(BTreeMap::new());
            }
            let namespaces = by_address(&Space::all());
            Ok(to_programs(&listed, &namespaces, sys::monotonic_ns()))
        })
        .await?;
        for (key, value) in &clients {
            let known = tables.affinity.get(key)?;
            if known.is_none_or(|known| known.last_used < value.last_used) {
                tables.affinity.set(key, value)?;
            }
        }
        tracing::debug!(clients = clients.len(), "clients that rules remembered");
        Ok(())
    }

    /// Has rules remember the clients that programs have seen, and by no other endpoint, as if they had come now: there is no
    /// way to say when. Needs the rules in force.
    ///
    /// # Errors
    ///
    /// If the map cannot be read or a list not be written.
    pub(super) async fn remember_clients_of_programs(
        &self,
        tables: &Tables,
        desired: &Desired,
    ) -> Result<(), EbpfError> {
        let endpoints = endpoints(desired);
        let entries = match endpoints.is_empty() {
            true => return Ok(()),
            false => tables.affinity.entries()?,
        };
        let netns = self.netns.clone();
        blocking(move || {
            let has_sockets = entries.iter().any(|(key, _)| key.namespace().is_some());
            let spaces = match has_sockets {
                true => Space::all(),
                false => Vec::new(),
            };
            let edits = to_rules(&endpoints, &entries, &spaces, sys::monotonic_ns());
            let _inside = netns.enter()?;
            for (list, edit) in edits {
                // A backend that rules do not know (any more) has no list.
                recent::remember(&list, edit.on)?;
                recent::forget(&list, edit.off)?;
            }
            Ok(())
        })
        .await
    }
}
