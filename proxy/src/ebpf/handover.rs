//! Flows from connection tracking into the flow table and back, under traffic. What a flow becomes is decided in
//! [`adopt`](super::adopt); this does it, in an order in which every packet finds somebody who translates it.
//!
//! ```text
//! to us:    CONFIG_HANDOVER, attach │ adopt │ clear CONFIG_HANDOVER │ adopt what began meanwhile │ rules go
//! from us:  rules come │ CONFIG_HANDOVER │ hand back │ hand back what was in flight │ detach
//! ```
//!
//! While `CONFIG_HANDOVER` is set, programs follow the flows that they know and begin none: what begins is translated by
//! rules, and a datagram to a Service leaves an entry `FLOW_STACK` behind, so that the next one goes the same way whenever
//! the flag is cleared. Thus attaching and detaching link by link changes nothing for any packet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use seaway_ebpf_abi::config::{CONFIG_HANDOVER, CONFIG_POD_FAST};
use seaway_ebpf_abi::flow::FLOW_STACK;
use seaway_ebpf_abi::{FlowKey, FlowValue, SocketKey, SteadyValue, TCP};
use seaway_kernel::conntrack::{Conntrack, Flow};
use seaway_kernel::{NetNs, Netlink};
use seaway_model::Desired;

use super::adopt::{self, Adopted, HandedBack, Left, Node, Place};
use super::error::EbpfError;
use super::flow_table::FlowTable;
use super::plane::EbpfDataplane;
use super::tables::Tables;
use super::tunnels::Forwarding;
use super::unconnected::Seed;
use super::{cleanup, pods, remains, sys, translated};
use crate::task::blocking;

/// Longer than a program runs, or a packet takes from a hook to connection tracking.
const IN_FLIGHT: Duration = Duration::from_millis(50);

/// Flows that were taken over, and those that connection tracking keeps.
#[derive(Debug, Default)]
pub struct Adoption {
    /// Entries of connection tracking that nobody needs any more once the rules are gone.
    taken: HashMap<FlowKey, Flow>,
    left: BTreeMap<Left, usize>,
    links: BTreeMap<IpAddr, Place>,
    /// Of which sockets the flows of datagrams are, as of the last look.
    pub(super) sockets: HashMap<FlowKey, Vec<Seed>>,
}

impl Adoption {
    /// How many flows were taken over.
    pub fn flows(&self) -> usize {
        self.taken.len()
    }

    /// Flows of Services that stay where they are, by the reason why.
    pub fn left(&self) -> Vec<(String, usize)> {
        let of_services = self.left.iter().filter(|(why, _)| **why != Left::NotOurs);
        of_services.map(|(why, n)| (why.to_string(), *n)).collect()
    }
}

/// Flows that connection tracking was told of.
#[derive(Debug, Default)]
pub struct HandBack {
    inserted: HashMap<FlowKey, HandedBack>,
    /// Entries of the flow table as they were, where they had to be changed.
    before: Vec<(FlowKey, FlowValue)>,
    /// The same of sockets.
    sockets: Vec<(SocketKey, SteadyValue)>,
    refused: usize,
}

impl HandBack {
    /// How many flows were handed over.
    pub fn flows(&self) -> usize {
        self.inserted.len()
    }

    /// Flows that connection tracking did not take, by the reason why.
    pub fn left(&self) -> Vec<(String, usize)> {
        match self.refused {
            0 => Vec::new(),
            n => vec![("with packets that were quicker".to_owned(), n)],
        }
    }

    /// Connection tracking has the flow of a socket.
    pub(super) fn took_socket(
        &mut self,
        (key, flow): (FlowKey, HandedBack),
        before: (SocketKey, SteadyValue),
    ) {
        self.inserted.insert(key, flow);
        self.sockets.push(before);
    }

    /// Connection tracking has not taken a flow.
    pub(super) fn refuse(&mut self) {
        self.refused += 1;
    }
}

impl EbpfDataplane {
    /// Whether programs of ours serve already, left by this process or by another.
    ///
    /// # Errors
    ///
    /// If the pins cannot be read.
    pub fn is_in_force(&self) -> Result<bool, EbpfError> {
        Ok(Tables::open(&self.settings.pin_dir())?.is_some())
    }

    /// Whether programs of ours serve what begins already, of whatever layout: then nobody else has flows of Services.
    ///
    /// # Errors
    ///
    /// If the pins cannot be read.
    pub fn succeeds_programs(&self) -> Result<bool, EbpfError> {
        if let Some(tables) = Tables::open(&self.settings.pin_dir())? {
            return Ok(tables.read_config()?.flags & CONFIG_HANDOVER == 0);
        }
        cleanup::has_other_layout(&self.settings)
    }

    /// Leaves what begins to rules, before the first plan is applied or while the programs serve.
    ///
    /// # Errors
    ///
    /// If the programs cannot be told.
    pub fn begin_handover(&mut self) -> Result<(), EbpfError> {
        self.set_handover(true)
    }

    /// Whether what begins is left to rules.
    pub fn is_handing_over(&self) -> bool {
        self.handover
    }

    fn set_handover(&mut self, on: bool) -> Result<(), EbpfError> {
        self.handover = on;
        // What begins meanwhile is connection tracking's, and has to be looked for before pods go past it again.
        self.fast.forget();
        // The programs may be another process's.
        if let Some(tables) = Tables::open(&self.settings.pin_dir())? {
            let mut config = tables.read_config()?;
            config.flags &= !(CONFIG_HANDOVER | CONFIG_POD_FAST);
            if on {
                config.flags |= CONFIG_HANDOVER;
            }
            tables.config.set(&0, &config)?;
        }
        Ok(())
    }

    /// Takes the flows of connection tracking over, then begins to serve what begins. Needs programs in force, and
    /// [`begin_handover`](Self::begin_handover) before they were. Rules have to stay until this is done.
    ///
    /// # Errors
    ///
    /// If connection tracking cannot be read or the flow table not be written. Both translate alike what they share, so
    /// that either may go then.
    pub async fn adopt(&mut self, desired: &Desired) -> Result<Adoption, EbpfError> {
        let mut adoption = Adoption::default();
        let before = self.adopt_what_is_there(desired, &mut adoption).await;
        // Whatever came of that: nobody else serves what begins once the rules are gone.
        self.set_handover(false)?;
        before?;
        // Those that began since the listing. Of datagrams the programs have kept track.
        tokio::time::sleep(IN_FLIGHT).await;
        let listed = self.adopt_what_is_there(desired, &mut adoption).await?;
        self.release(&listed)?;
        Ok(adoption)
    }

    /// One look at connection tracking; the flows in it.
    async fn adopt_what_is_there(
        &self,
        desired: &Desired,
        adoption: &mut Adoption,
    ) -> Result<HashSet<FlowKey>, EbpfError> {
        let tables = self.tables()?;
        self.remember_clients_of_rules(&tables, desired).await?;
        let config = tables.read_config()?;
        let addresses = tables.node_addresses()?;
        let entries = list(&self.netns).await?;
        self.find_links(&entries, &mut adoption.links).await?;
        adoption.sockets = self.find_sockets(&entries).await?;
        let node = Node {
            image: &self.image,
            config: &config,
            addresses: &addresses,
            links: &adoption.links,
        };
        let now = sys::monotonic_ns();
        let mut conntrack = Conntrack::in_namespace(&self.netns)?;
        adoption.left.clear();
        let mut listed = HashSet::with_capacity(entries.len());
        for entry in &entries {
            let key = adopt::key_of(entry);
            listed.insert(key);
            let mut in_flow_table = false;
            match adopt::adopt(entry, &node, now) {
                Ok(flow) => {
                    in_flow_table = flow.reverse.is_some();
                    if take(&tables.flows, &flow)? && in_flow_table {
                        // If it has to do this again, it has not seen what was sent meanwhile.
                        if entry.protocol == TCP {
                            conntrack.be_liberal(entry)?;
                        }
                        adoption.taken.insert(key, *entry);
                    }
                }
                Err(_) if adoption.has_sockets(&key) => {}
                Err(why) => *adoption.left.entry(why).or_default() += 1,
            }
            if let Some(seeds) = adoption.sockets.get(&key) {
                Self::seed(&tables, &mut conntrack, (entry, seeds), in_flow_table)?;
                adoption.taken.insert(key, *entry);
            }
        }
        Ok(listed)
    }

    /// By which links clients arrive that have not been asked for.
    async fn find_links(
        &self,
        entries: &[Flow],
        known: &mut BTreeMap<IpAddr, Place>,
    ) -> Result<(), EbpfError> {
        let is_service = |entry: &&Flow| adopt::is_for(&self.image, entry);
        let clients: BTreeSet<IpAddr> = entries
            .iter()
            .filter(is_service)
            .map(|entry| entry.original.source.ip())
            .filter(|ip| !known.contains_key(ip))
            .collect();
        let netlink = Netlink::in_namespace(&self.netns)?;
        for client in clients {
            let route = netlink.route_to(client).await?;
            let link = route.and_then(|route| route.link);
            let place = link.and_then(|index| {
                let link = self.view.links.get(&index)?;
                Some((index, link.role))
            });
            if let Some((index, role)) = place {
                known.insert(client, Place { index, role });
            }
        }
        Ok(())
    }

    /// Lets go of datagrams' flows that were left to connection tracking and that it does not have: refused ones.
    fn release(&self, listed: &HashSet<FlowKey>) -> Result<(), EbpfError> {
        let tables = self.tables()?;
        let entries = tables.flows.entries()?;
        let nobodys: Vec<FlowKey> = entries
            .iter()
            .filter(|(key, value)| value.flags & FLOW_STACK != 0 && !listed.contains(key))
            .map(|(key, _)| *key)
            .collect();
        tables.flows.delete_all(&nobodys)?;
        Self::release_sockets(&tables)
    }

    /// How many flows of Services connection tracking translates that were not taken over.
    ///
    /// # Errors
    ///
    /// If connection tracking or the flow table cannot be read.
    pub async fn left_behind(&self) -> Result<usize, EbpfError> {
        let flows = self.tables()?.flows;
        let mut left = 0;
        for entry in list(&self.netns).await? {
            let known = || Ok::<_, EbpfError>(flows.get(&adopt::key_of(&entry))?.is_some_and(has));
            if adopt::is_for(&self.image, &entry) && !known()? {
                left += 1;
            }
        }
        Ok(left)
    }

    /// Deletes the entries of flows that were taken over, once the rules are gone: nothing passes there any more.
    ///
    /// # Errors
    ///
    /// If connection tracking does not take a deletion. What is left expires by itself.
    pub async fn forget(&self, adoption: Adoption) -> Result<(), EbpfError> {
        let mut conntrack = Conntrack::in_namespace(&self.netns)?;
        blocking(move || {
            for entry in adoption.taken.values() {
                conntrack.delete(entry)?;
            }
            Ok(())
        })
        .await
    }

    /// Begins no flow any more and tells connection tracking of those that there are. Needs the rules in force, and no
    /// programs of this process: those of another serve as well.
    ///
    /// # Errors
    ///
    /// If the flow table cannot be read or connection tracking takes no entries.
    pub async fn hand_back(
        &mut self,
        done: &mut HandBack,
        desired: &Desired,
    ) -> Result<(), EbpfError> {
        let tables = self.tables()?;
        self.remember_clients_of_programs(&tables, desired).await?;
        self.set_handover(true)?;
        self.hand_back_what_is_there(&tables, done).await?;
        tokio::time::sleep(IN_FLIGHT).await;
        self.remember_clients_of_programs(&tables, desired).await?;
        self.hand_back_what_is_there(&tables, done).await
    }

    async fn hand_back_what_is_there(
        &self,
        tables: &Tables,
        done: &mut HandBack,
    ) -> Result<(), EbpfError> {
        self.hand_sockets_back(tables, done).await?;
        let flows = tables.flows.clone();
        let mut conntrack = Conntrack::in_namespace(&self.netns)?;
        let mut moved = std::mem::take(done);
        let (moved, result) = blocking(move || -> Result<_, EbpfError> {
            let result = moved.tell(&flows, &mut conntrack);
            Ok((moved, result))
        })
        .await?;
        *done = moved;
        result
    }

    /// Takes everything back that [`hand_back`](Self::hand_back) did, and takes over what rules have begun to serve since.
    /// These may go then.
    ///
    /// # Errors
    ///
    /// If the flow table cannot be written.
    pub async fn take_back(
        &mut self,
        done: HandBack,
        desired: &Desired,
    ) -> Result<Adoption, EbpfError> {
        let tables = self.tables()?;
        let mut conntrack = Conntrack::in_namespace(&self.netns)?;
        blocking(move || -> Result<_, EbpfError> {
            for flow in done.inserted.values() {
                conntrack.evict(flow.entry.protocol, &flow.entry.original)?;
            }
            for (key, value) in &done.before {
                tables.flows.set(key, value)?;
            }
            for (key, value) in &done.sockets {
                tables.steady.set(key, value)?;
            }
            Ok(())
        })
        .await?;
        self.adopt(desired).await
    }

    /// Removes everything but the hooks that show the frontend to sockets connected through us, with what those read; where
    /// there are flows that rules [cannot carry](super::remains), or other nodes may not know yet that none are to begin, also but what these take.
    /// Returns one line per kind of thing removed.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub async fn withdraw(&mut self) -> Result<Vec<String>, EbpfError> {
        let netlink = Netlink::in_namespace(&self.netns)?;
        // What goes wrong from here on is put right by loading anew.
        self.let_go();
        let lines = if self.settings.forwarding == Forwarding::Dsr || self.direct_flows()? > 0 {
            remains::keep_direct(&self.tables()?.flows)?;
            pods::clear(&self.settings.pin_dir())?;
            cleanup::leave_packets(&self.settings)?
        } else {
            cleanup::withdraw(&self.settings, &netlink, &self.netns).await?
        };
        self.reset();
        Ok(lines)
    }

    /// How many flows there are in which another node answers, or the other node's clients are answered here.
    ///
    /// # Errors
    ///
    /// If the flow table cannot be read.
    pub fn direct_flows(&self) -> Result<usize, EbpfError> {
        remains::direct_flows(&self.tables()?.flows)
    }

    fn tables(&self) -> Result<Tables, EbpfError> {
        let dir = self.settings.pin_dir();
        Tables::open(&dir)?.ok_or_else(|| EbpfError::Load {
            object: "the maps".to_owned(),
            reason: format!("not all of them are pinned in {}", dir.display()),
        })
    }
}

impl HandBack {
    /// Tells connection tracking of the flows that it has not been told of.
    fn tell(&mut self, flows: &FlowTable, conntrack: &mut Conntrack) -> Result<(), EbpfError> {
        let now = sys::monotonic_ns();
        self.refused = 0;
        let entries = flows.entries()?;
        for (key, value) in entries {
            let Some(flow) = adopt::hand_back(&key, &value, now) else {
                continue;
            };
            if self.inserted.contains_key(&key) {
                continue;
            }
            let stands = if flow.to_node {
                self.before.push((key, value));
                // The stack tracks these packets as we send them up. A connection is held while that entry makes room:
                // the server would see another port, and its answer break the connection. A datagram may.
                if key.protocol == TCP {
                    flows.set(&key, &adopt::on_the_way(&value))?;
                }
                let stands = conntrack.replace(&flow.entry);
                let after = match stands {
                    Ok(true) => adopt::handed_over(&value),
                    _ => value,
                };
                flows.set(&key, &after)?;
                stands?
            } else {
                conntrack.replace(&flow.entry)?
            };
            if stands {
                self.inserted.insert(key, flow);
            } else {
                self.refused += 1;
            }
        }
        Ok(())
    }
}

/// Whether the flow table translates the flow.
fn has(value: FlowValue) -> bool {
    value.flags & FLOW_STACK == 0
}

/// Writes a flow, the reverse entry first; `false` if the table has the flow already.
fn take(flows: &FlowTable, flow: &Adopted) -> Result<bool, EbpfError> {
    let (key, value) = &flow.forward;
    if flows.get(key)?.is_some_and(has) {
        return Ok(false);
    }
    if let Some((key, value)) = &flow.reverse {
        flows.set(key, value)?;
    }
    flows.set(key, value)?;
    Ok(true)
}

/// Every translated entry that the programs could carry.
async fn list(netns: &NetNs) -> Result<Vec<Flow>, EbpfError> {
    let mut conntrack = Conntrack::in_namespace(netns)?;
    blocking(move || {
        let mut entries = Vec::new();
        translated::list(&mut conntrack, |flows| entries.extend_from_slice(flows))?;
        Ok(entries)
    })
    .await
}
