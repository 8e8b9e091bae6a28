//! Keeps what is known of pods in step with the kernel: an event says which link has to be asked again, and only that one is. At
//! most one such look is under way, beside everything else; what happens meanwhile is asked after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use seaway_kernel::{Event, Link, Neighbour, NetNs, Route};
use seaway_model::ownership::is_pod_link;
use tokio::task::JoinSet;

use super::ask::{self, Answers, Question};
use super::peers::{self, Peers};
use super::{Local, Side, is_link_local, maps};
use crate::ebpf::error::EbpfError;
use crate::ebpf::node::{NodeLink, Role};
use crate::task::finished;

/// The node's links by index.
type Links = BTreeMap<u32, NodeLink>;

/// What is known of pods, and what of it is to be asked.
#[derive(Debug, Default)]
pub(in crate::ebpf) struct Pods {
    sides: BTreeMap<u32, Side>,
    /// As it was last written; `None` before the first answer, when the maps have what the process before ours knew.
    local: Option<Local>,
    /// Likewise.
    peers: Option<Peers>,
    due: BTreeSet<u32>,
    overlay_due: bool,
    /// Pods that came whose links may be limited a little later, which nobody tells.
    recent: BTreeSet<u32>,
    asking: JoinSet<Result<Answers, EbpfError>>,
}

impl Pods {
    /// Nothing is known any more: all that there is has to be asked.
    pub(in crate::ebpf) fn begin(&mut self, links: &Links) {
        *self = Self {
            due: links.keys().copied().collect(),
            overlay_due: true,
            ..Self::default()
        };
    }

    /// Whether the maps have what the kernel said.
    pub(in crate::ebpf) fn is_known(&self) -> bool {
        self.local.is_some()
    }

    /// Takes note of what an event concerns. `links` has the link of the event already.
    pub(in crate::ebpf) fn notice(&mut self, event: &Event, links: &Links) {
        let role = |index| links.get(&index).map(|link| link.role);
        match event {
            Event::LinkSet(link) => match role(link.index) {
                Some(Role::Pod) if !self.has(link) => self.ask_for(link.index),
                Some(Role::Overlay) => self.overlay_due = true,
                _ => {}
            },
            Event::RouteSet(route) | Event::RouteDeleted(route) => {
                self.notice_route(route, route.link.and_then(role));
            }
            Event::NeighbourSet(neighbour) | Event::NeighbourDeleted(neighbour) => {
                match role(neighbour.link) {
                    Some(Role::Pod) if self.matters(neighbour) => self.ask_for(neighbour.link),
                    Some(Role::Overlay) => self.overlay_due = true,
                    _ => {}
                }
            }
            Event::LinkDeleted(_) | Event::AddressSet(_) | Event::AddressDeleted(_) => {}
        }
    }

    fn notice_route(&mut self, route: &Route, role: Option<Role>) {
        match (role, route.link) {
            (Some(Role::Pod), Some(link)) => {
                if !is_link_local(&route.destination) {
                    self.ask_for(link);
                }
            }
            (Some(Role::Overlay), _) => self.overlay_due |= route.encap.is_some(),
            _ => {
                let peers = self.peers.as_ref();
                self.overlay_due |= peers.is_some_and(|peers| peers::concerns(route, peers));
            }
        }
    }

    fn ask_for(&mut self, link: u32) {
        self.due.insert(link);
        self.recent.insert(link);
    }

    fn has(&self, link: &Link) -> bool {
        let known = self.sides.get(&link.index);
        known.is_some_and(|known| known.link == *link)
    }

    /// Whether a neighbour of a pod's link says where the pod is, or did.
    fn matters(&self, neighbour: &Neighbour) -> bool {
        let side = self.sides.get(&neighbour.link);
        let known = side.and_then(|side| *side.addresses.get(&neighbour.address)?);
        match neighbour.permanent {
            true => known != neighbour.mac,
            false => known.is_some(),
        }
    }

    /// The whole node was looked at: other links may be those of pods now.
    pub(in crate::ebpf) fn compare(
        &mut self,
        dir: &Path,
        before: &Links,
        now: &Links,
    ) -> Result<(), EbpfError> {
        for (index, link) in now {
            if before.get(index) != Some(link) {
                self.due.insert(*index);
                self.overlay_due |= link.role == Role::Overlay;
            }
        }
        for (index, link) in before {
            if now.get(index) != Some(link) {
                self.forget(dir, *index, link.role)?;
            }
        }
        Ok(())
    }

    /// A link is gone: forgets its pod at once, whose addresses may belong to another one in a moment.
    pub(in crate::ebpf) fn forget(
        &mut self,
        dir: &Path,
        link: u32,
        role: Role,
    ) -> Result<(), EbpfError> {
        self.overlay_due |= role == Role::Overlay;
        match self.sides.remove(&link) {
            Some(_) => self.write_local(dir),
            None => Ok(()),
        }
    }

    /// Asks once more for the links of pods that came lately.
    pub(in crate::ebpf) fn ask_again(&mut self) {
        self.due.append(&mut self.recent);
    }

    /// Begins to ask for what is due, if nobody does.
    pub(in crate::ebpf) fn ask(&mut self, netns: &NetNs, links: &Links) {
        if !self.asking.is_empty() || (self.due.is_empty() && !self.overlay_due) {
            return;
        }
        let due = std::mem::take(&mut self.due);
        let pods = due.into_iter().filter_map(|index| {
            let link = links.get(&index).filter(|link| link.role == Role::Pod)?;
            Some((index, is_pod_link(&link.name)))
        });
        let overlay = || {
            let mut links = links.iter();
            let found = links.find(|(_, link)| link.role == Role::Overlay);
            found.map(|(index, _)| *index)
        };
        let question = Question {
            links: pods.collect(),
            overlay: std::mem::take(&mut self.overlay_due).then(overlay),
        };
        self.asking.spawn(ask::ask(netns.clone(), question));
    }

    /// The next answers; never, if nobody asks. May be dropped and called again.
    pub(in crate::ebpf) async fn answered(&mut self) -> Result<Answers, EbpfError> {
        match self.asking.join_next().await {
            Some(answers) => finished(answers),
            None => std::future::pending().await,
        }
    }

    /// Takes answers in and tells the programs.
    pub(in crate::ebpf) fn take_in(
        &mut self,
        dir: &Path,
        answers: Answers,
        links: &Links,
    ) -> Result<(), EbpfError> {
        for (index, side) in answers.sides {
            // It may have gone since.
            let is_pod = links.get(&index).is_some_and(|link| link.role == Role::Pod);
            match side.filter(|_| is_pod) {
                Some(side) => self.sides.insert(index, side),
                None => self.sides.remove(&index),
            };
        }
        if let Some(peers) = answers.peers {
            let there = match self.peers.take() {
                Some(peers) => peers,
                None => maps::read_peers(dir)?,
            };
            maps::write_peers(dir, &there, &peers)?;
            self.peers = Some(peers);
        }
        self.write_local(dir)
    }

    fn write_local(&mut self, dir: &Path) -> Result<(), EbpfError> {
        let wanted = Local::new(&self.sides);
        let there = match self.local.take() {
            Some(local) => local,
            None => maps::read_local(dir)?,
        };
        maps::write_local(dir, &there, &wanted)?;
        self.local = Some(wanted);
        Ok(())
    }

    /// Writes what is known where the maps have something else. Returns the number of writes.
    pub(in crate::ebpf) fn write(&self, dir: &Path) -> Result<usize, EbpfError> {
        let mut writes = 0;
        if let Some(local) = &self.local {
            writes += maps::write_local(dir, &maps::read_local(dir)?, local)?;
        }
        if let Some(peers) = &self.peers {
            writes += maps::write_peers(dir, &maps::read_peers(dir)?, peers)?;
        }
        Ok(writes)
    }
}

#[cfg(test)]
mod tests;
