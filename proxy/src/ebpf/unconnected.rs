//! UDP sockets that are not connected, and whose datagrams the socket hooks see. They are translated one by one: by rules as
//! packets, by the hooks before they are one. So that each goes on with its backend, `STEADY` is told what connection
//! tracking has of them, and connection tracking what `STEADY` has.
//!
//! While a change is under way, an entry [`SteadyValue::LEFT`] says that a socket's datagrams go out as they are: the hooks
//! leave it for those that begin meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use seaway_ebpf_abi::flow::{STATE_OPENED, STATE_REPLIED};
use seaway_ebpf_abi::{FlowKey, SocketKey, SocketValue, SteadyValue, UDP, maps};
use seaway_ebpf_logic::flow::timeout;
use seaway_kernel::conntrack::{Conntrack, Family, Filter, Flow, NewFlow, Status, Tuple};
use seaway_kernel::{Netlink, cgroup};

use super::adopt::{self, HandedBack};
use super::error::EbpfError;
use super::handover::{Adoption, HandBack};
use super::plane::EbpfDataplane;
use super::spaces::Space;
use super::table::Table;
use super::tables::Tables;
use crate::task::blocking;

#[cfg(test)]
mod tests;

/// A socket and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    cookie: u64,
    local: SocketAddr,
    /// Which of the namespaces.
    space: usize,
}

/// The sockets that the hooks see, or all.
#[derive(Debug, Default)]
struct Sockets {
    spaces: Vec<Space>,
    by_port: HashMap<u16, Vec<Socket>>,
}

impl Sockets {
    /// Blocks. `seen`: those of these cgroups only; `but`: not those of these namespaces.
    fn list(seen: Option<&BTreeSet<u64>>, but: &BTreeSet<u64>) -> Self {
        let mut sockets = Self::default();
        for space in Space::all() {
            if but.contains(&space.cookie) {
                continue;
            }
            let number = sockets.spaces.len();
            for socket in space.unconnected() {
                // A kernel that does not say has the hooks at the root, as everywhere but in tests.
                let is_seen = |cgroup| seen.is_none_or(|seen| seen.contains(&cgroup));
                if socket.cgroup.is_none_or(is_seen) {
                    let of_port = sockets.by_port.entry(socket.local.port()).or_default();
                    of_port.push(Socket {
                        cookie: socket.cookie,
                        local: socket.local,
                        space: number,
                    });
                }
            }
            sockets.spaces.push(space);
        }
        sockets
    }

    /// What the hooks have to know of the sockets that a flow may be of: more than one where they share a port.
    fn of_flow(&self, entry: &Flow) -> Vec<Seed> {
        let Tuple {
            source,
            destination,
        } = entry.original;
        let candidates = self.by_port.get(&source.port()).into_iter().flatten();
        let is_its = |socket: &&Socket| match socket.local.ip() {
            ip if ip.is_unspecified() => self.spaces[socket.space].addresses.contains(&source.ip()),
            ip => ip == source.ip(),
        };
        let seed = |socket: &Socket| {
            let namespace = self.spaces[socket.space].cookie;
            Seed::new(socket.cookie, namespace, destination, entry.reply.source)
        };
        candidates.filter(is_its).map(seed).collect()
    }
}

/// What the hooks know of a socket: who serves it, and whom that one stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed {
    steady: (SocketKey, SteadyValue),
    shown: (SocketKey, SocketValue),
}

impl Seed {
    fn new(cookie: u64, netns: u64, frontend: SocketAddr, backend: SocketAddr) -> Self {
        let key = |at: SocketAddr| SocketKey {
            cookie,
            addr: at.ip().into(),
            port: at.port().to_be(),
            pad: [0; 3],
        };
        let (asked, served) = (key(frontend), key(backend));
        Self {
            steady: (
                asked,
                SteadyValue {
                    addr: served.addr,
                    port: served.port,
                    pad: 0,
                    // Whether it still serves is looked up with the next datagram.
                    set: 0,
                },
            ),
            shown: (
                served,
                SocketValue {
                    addr: asked.addr,
                    port: asked.port,
                    pad: [0; 3],
                    netns,
                },
            ),
        }
    }
}

impl EbpfDataplane {
    /// Of which sockets the flows of datagrams are that connection tracking has.
    pub(super) async fn find_sockets(
        &self,
        entries: &[Flow],
    ) -> Result<HashMap<FlowKey, Vec<Seed>>, EbpfError> {
        let of_services = entries.iter().filter(|entry| entry.protocol == UDP);
        let flows: Vec<Flow> = of_services
            .filter(|entry| adopt::is_for(&self.image, entry))
            .copied()
            .collect();
        if flows.is_empty() {
            return Ok(HashMap::new());
        }
        let untranslated: Option<Table<u64, u32>> =
            Table::open(&self.settings.pin_dir(), maps::UNTRANSLATED)?;
        let cgroup_root = self.settings.cgroup_root.clone();
        blocking(move || {
            let untranslated = match untranslated {
                Some(table) => table.entries()?,
                None => Vec::new(),
            };
            let untranslated = untranslated.iter().map(|(cookie, _)| *cookie).collect();
            let seen = cgroup::numbers(&cgroup_root)?;
            let sockets = Sockets::list(Some(&seen), &untranslated);
            let of_flow = |entry: &Flow| (adopt::key_of(entry), sockets.of_flow(entry));
            let found = flows.iter().map(of_flow);
            Ok(found.filter(|(_, seeds)| !seeds.is_empty()).collect())
        })
        .await
    }

    /// Tells the hooks of a flow's sockets, whose datagrams have another conntrack entry from now on, or none. The one of before
    /// goes at once where it would be in the way of that, and would give it another port: first, where the flow table has the flow. Else it
    /// stays until [`forget`](Self::forget), for answers that are on their way to the port that it knows.
    pub(super) fn seed(
        tables: &Tables,
        conntrack: &mut Conntrack,
        (entry, seeds): (&Flow, &[Seed]),
        in_flow_table: bool,
    ) -> Result<(), EbpfError> {
        let mut due = Vec::new();
        for seed in seeds {
            let known = tables.steady.get(&seed.steady.0)?;
            // The hooks have chosen one since.
            if known.is_none_or(|known| known.is_left()) {
                due.push(seed);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        if in_flow_table {
            conntrack.delete(entry)?;
        }
        for seed in due {
            let (key, value) = &seed.shown;
            tables.sockets_udp.set(key, value)?;
            let (key, value) = &seed.steady;
            tables.steady.set(key, value)?;
        }
        if !in_flow_table && keeps_port(entry) {
            conntrack.delete(entry)?;
        }
        Ok(())
    }

    /// Lets go of sockets that were left to rules and that connection tracking does not have: refused ones.
    pub(super) fn release_sockets(tables: &Tables) -> Result<(), EbpfError> {
        let entries = tables.steady.entries()?;
        let left = entries.iter().filter(|(_, value)| value.is_left());
        let keys: Vec<SocketKey> = left.map(|(key, _)| *key).collect();
        tables.steady.delete_all(&keys)?;
        Ok(())
    }

    /// Tells connection tracking of the sockets that the hooks serve, then leaves their datagrams to it.
    pub(super) async fn hand_sockets_back(
        &self,
        tables: &Tables,
        done: &mut HandBack,
    ) -> Result<(), EbpfError> {
        let entries = tables.steady.entries()?;
        let served: Vec<(SocketKey, SteadyValue)> = entries
            .into_iter()
            // Rules serve no node ports at loopback addresses.
            .filter(|(key, value)| !value.is_left() && !key.addr.ip().is_loopback())
            .collect();
        if served.is_empty() {
            return Ok(());
        }
        let backends = served.iter().map(|(_, value)| backend(value)).collect();
        let netns = self.netns.clone();
        let (sockets, direct) = blocking(move || -> Result<_, EbpfError> {
            let mut conntrack = Conntrack::in_namespace(&netns)?;
            let direct = direct(&mut conntrack, &backends)?;
            Ok((Sockets::list(None, &BTreeSet::new()), direct))
        })
        .await?;
        let here: HashMap<u64, Socket> = sockets
            .by_port
            .values()
            .flatten()
            .map(|socket| (socket.cookie, *socket))
            .collect();
        let mut sources = Sources::default();
        let mut conntrack = Conntrack::in_namespace(&self.netns)?;
        for (key, value) in served {
            // Closed since long.
            let Some(socket) = here.get(&key.cookie) else {
                continue;
            };
            let frontend = SocketAddr::new(key.addr.ip(), u16::from_be(key.port));
            let backend = backend(&value);
            let space = &sockets.spaces[socket.space];
            let (Some(from), Some(now_from)) = (
                sources.of(space, socket, frontend.ip()).await?,
                sources.of(space, socket, backend.ip()).await?,
            ) else {
                continue;
            };
            let now = Tuple {
                source: now_from,
                destination: backend,
            };
            let original = Tuple {
                source: from,
                destination: frontend,
            };
            let entry = as_rules_do(original, now, direct.get(&now));
            done.hand_socket_back(tables, &mut conntrack, entry, (key, value))?;
        }
        Ok(())
    }
}

/// Whether backends know the client by its own port.
fn keeps_port(entry: &Flow) -> bool {
    entry.reply.destination.port() == entry.original.source.port()
}

/// The entry that rules would have made of a socket's datagrams. `now`: these as the hooks send them, with what connection
/// tracking has of them.
fn as_rules_do(original: Tuple, now: Tuple, direct: Option<&Flow>) -> NewFlow {
    // As the backend knows the client, which may be masqueraded on its way.
    let reply = direct.map_or_else(|| now.swapped(), |flow| flow.reply);
    let answered = direct.is_none_or(|flow| flow.status.contains(Status::SEEN_REPLY));
    NewFlow {
        protocol: UDP,
        original,
        reply,
        tcp: None,
        answered,
        timeout: Duration::from_nanos(timeout(UDP, STATE_OPENED | STATE_REPLIED)),
    }
}

fn backend(value: &SteadyValue) -> SocketAddr {
    SocketAddr::new(value.addr.ip(), u16::from_be(value.port))
}

/// What connection tracking has of datagrams that were sent to these backends as such.
fn direct(
    conntrack: &mut Conntrack,
    backends: &BTreeSet<SocketAddr>,
) -> Result<HashMap<Tuple, Flow>, EbpfError> {
    let mut found = HashMap::new();
    for family in [Family::V4, Family::V6] {
        conntrack.list(&Filter::new(family, UDP), |flows| {
            let ours = flows
                .iter()
                .filter(|flow| backends.contains(&flow.original.destination));
            found.extend(ours.map(|flow| (flow.original, *flow)));
        })?;
    }
    Ok(found)
}

/// From which addresses namespaces send.
#[derive(Debug, Default)]
struct Sources {
    netlinks: BTreeMap<u64, Netlink>,
    known: BTreeMap<(u64, IpAddr), Option<IpAddr>>,
}

impl Sources {
    /// The source of what a socket sends to that address.
    async fn of(
        &mut self,
        space: &Space,
        socket: &Socket,
        to: IpAddr,
    ) -> Result<Option<SocketAddr>, EbpfError> {
        let local = socket.local;
        if !local.ip().is_unspecified() {
            return Ok(Some(local));
        }
        let at = (space.cookie, to);
        let ip = match self.known.get(&at) {
            Some(ip) => *ip,
            None => {
                let ip = self.look_up(space, to).await?;
                self.known.insert(at, ip);
                ip
            }
        };
        Ok(ip.map(|ip| SocketAddr::new(ip, local.port())))
    }

    async fn look_up(&mut self, space: &Space, to: IpAddr) -> Result<Option<IpAddr>, EbpfError> {
        let netlink = match self.netlinks.entry(space.cookie) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Netlink::in_namespace(&space.netns)?)
            }
        };
        let route = netlink.route_to(to).await?;
        Ok(route.and_then(|route| route.source))
    }
}

impl HandBack {
    fn hand_socket_back(
        &mut self,
        tables: &Tables,
        conntrack: &mut Conntrack,
        entry: NewFlow,
        (key, value): (SocketKey, SteadyValue),
    ) -> Result<(), EbpfError> {
        if !conntrack.replace(&entry)? {
            self.refuse();
            return Ok(());
        }
        tables.steady.set(&key, &SteadyValue::LEFT)?;
        let flow = HandedBack {
            entry,
            to_node: false,
        };
        self.took_socket((adopt::key(UDP, &entry.original), flow), (key, value));
        Ok(())
    }
}

impl Adoption {
    /// Whether the flow's sockets are served by the hooks from now on.
    pub(super) fn has_sockets(&self, key: &FlowKey) -> bool {
        self.sockets.contains_key(key)
    }
}
