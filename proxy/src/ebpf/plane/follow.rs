//! Keeps in step with the node while the programs serve: its links, addresses and routes, what nobody tells, and what is old.

use std::time::Duration;

use seaway_kernel::{Event, Link, NetNs, Netlink, Route, Watch, WatchGroups};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::EbpfDataplane;
use crate::ebpf::error::EbpfError;
use crate::ebpf::node::{self, NodeLink, NodeView, Role};
use crate::ebpf::pods::Answers;
use crate::ebpf::room::Room;
use crate::ebpf::{affinity, gc, sys, tunnels};
use crate::task::finished;

/// How often silent flows are looked for, and once more for what limits new pods.
const GC_INTERVAL: Duration = Duration::from_secs(15);
/// How often it is asked whether rules have changed that packets between pods would go past.
const RULES_INTERVAL: Duration = Duration::from_secs(1);
/// How often the kernel is compared with the image.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// What is needed to keep in step with the node.
pub(super) struct Following {
    pub(super) netlink: Netlink,
    watch: Watch,
    /// The node has changed since it was last read.
    stale: bool,
    /// The look at the whole node that is under way, if any. A task of its own: whoever waits for events is called away
    /// whenever a Service changes, and that may happen faster than a node with many links is read.
    reading: JoinSet<Result<NodeView, EbpfError>>,
    rules: Interval,
    gc: Interval,
    audit: Interval,
}

impl Following {
    /// Subscribes to the changes of a namespace.
    pub(super) fn new(netns: &NetNs) -> Result<Self, EbpfError> {
        let every = |period: Duration| {
            let mut interval = interval_at(tokio::time::Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        Ok(Self {
            watch: subscribe(netns)?,
            netlink: Netlink::in_namespace(netns)?,
            stale: false,
            reading: JoinSet::new(),
            rules: every(RULES_INTERVAL),
            gc: every(GC_INTERVAL),
            audit: every(AUDIT_INTERVAL),
        })
    }

    /// The whole node is read by somebody else, now.
    pub(super) fn begin(&mut self) {
        self.reading = JoinSet::new();
        self.stale = false;
    }
}

fn subscribe(netns: &NetNs) -> Result<Watch, EbpfError> {
    let groups = WatchGroups {
        links: true,
        addresses: true,
        routes: true,
        neighbours: true,
    };
    Ok(Watch::in_namespace(netns, groups)?)
}

impl EbpfDataplane {
    pub(super) async fn attend(&mut self) -> Result<String, EbpfError> {
        enum Due {
            Event(Option<Event>),
            Node(Result<NodeView, EbpfError>),
            Pods(Result<Answers, EbpfError>),
            Rules,
            InTheWay(Result<Option<String>, EbpfError>),
            Gc,
            Audit,
            Answering,
        }
        loop {
            let Some(following) = &mut self.following else {
                return std::future::pending().await;
            };
            if following.stale && following.reading.is_empty() {
                following.stale = false;
                let (netlink, detect_local) = (
                    following.netlink.clone(),
                    self.settings.detect_local.clone(),
                );
                let read = async move { node::read(&netlink, &detect_local).await };
                following.reading.spawn(read);
            }
            self.pods.ask(&self.netns, &self.view.links);
            let due = tokio::select! {
                // After what is being read, which may be older: in the order in which things happened.
                event = following.watch.next(), if following.reading.is_empty() => Due::Event(event),
                Some(read) = following.reading.join_next() => Due::Node(finished(read)),
                answers = self.pods.answered() => Due::Pods(answers),
                found = self.fast.found() => Due::InTheWay(found),
                _ = following.rules.tick() => Due::Rules,
                _ = following.gc.tick() => Due::Gc,
                _ = following.audit.tick() => Due::Audit,
                () = tunnels::heard(&mut self.answering) => Due::Answering,
            };
            match due {
                Due::Event(Some(event)) => {
                    let stale = self.event(&event)?;
                    if let Some(following) = &mut self.following {
                        following.stale |= stale;
                    }
                }
                Due::Node(view) => self.refresh(view?)?,
                Due::Event(None) => {
                    following.watch = subscribe(&self.netns)?;
                    following.stale = true;
                    self.pods.begin(&self.view.links);
                }
                Due::Pods(answers) => {
                    let dir = self.settings.pin_dir();
                    self.pods.take_in(&dir, answers?, &self.view.links)?;
                }
                // What connection tracking translates is noted by what is known of pods.
                Due::Rules => {
                    if self.active.is_some() && !self.handover && self.pods.is_known() {
                        self.fast.look(&self.settings, &self.netns)?;
                    }
                }
                Due::InTheWay(found) => self.fast.decide(&self.settings, found)?,
                Due::Gc => {
                    self.pods.ask_again();
                    self.collect();
                }
                Due::Answering => {
                    self.write_node()?;
                    if let Some(active) = &self.active {
                        active.tables.new_epoch()?;
                    }
                }
                Due::Audit => {
                    // Of what there is no event: the ports that sockets of the node take.
                    self.write_node()?;
                    self.pods.write(&self.settings.pin_dir())?;
                    if let Some(difference) = self.audit()? {
                        // Whatever was lost is set up anew from the pins that are left.
                        self.active = None;
                        return Ok(difference);
                    }
                    self.forget_clients();
                }
            }
        }
    }

    /// Brings everything in step with the node as it was read.
    fn refresh(&mut self, view: NodeView) -> Result<(), EbpfError> {
        let before = std::mem::replace(&mut self.view, view);
        self.tell_of_links(&before);
        let dir = self.settings.pin_dir();
        self.pods.compare(&dir, &before.links, &self.view.links)?;
        self.told = false;
        self.write_node()?;
        self.attach_links()
    }

    /// Says of each link once that nobody is served who comes by it.
    pub(super) fn tell_of_links(&self, before: &NodeView) {
        for link in self.view.unframed.difference(&before.unframed) {
            tracing::warn!(
                %link,
                "its packets have a header that is neither Ethernet nor none, and are left to the stack: clients that come by it are not \
                 served, nor are others by endpoints behind it, but for sockets of the node and of pods"
            );
        }
        self.shared.leave_links(self.view.unframed.len());
    }

    /// Deals with one change of the node. Returns whether the rest of the node has to be looked at.
    fn event(&mut self, event: &Event) -> Result<bool, EbpfError> {
        let is_neighbour = matches!(event, Event::NeighbourSet(_) | Event::NeighbourDeleted(_));
        if let Some(active) = self.active.as_ref().filter(|_| !is_neighbour) {
            active.tables.new_epoch()?;
        }
        let stale = match event {
            Event::LinkSet(link) => self.link_set(link)?,
            Event::LinkDeleted(link) => self.link_deleted(link)?,
            Event::AddressSet(_) | Event::AddressDeleted(_) => true,
            Event::RouteSet(route) => self.tunnel_set(route)? || self.matters(route),
            Event::RouteDeleted(route) => {
                self.view.tunnels.nodes.contains_key(&route.destination) || self.matters(route)
            }
            Event::NeighbourSet(_) | Event::NeighbourDeleted(_) => false,
        };
        self.pods.notice(event, &self.view.links);
        Ok(stale)
    }

    fn link_deleted(&mut self, link: &Link) -> Result<bool, EbpfError> {
        let Some(gone) = self.view.links.remove(&link.index) else {
            return Ok(false);
        };
        let dir = self.settings.pin_dir();
        self.pods.forget(&dir, link.index, gone.role)?;
        if let Some(active) = &mut self.active {
            active.attachments.retain(&self.view.links)?;
        }
        Ok(gone.role != Role::Pod)
    }

    /// Whether a route that came or went may change a role.
    fn matters(&self, route: &Route) -> bool {
        node::matter(route, &self.view, &self.settings.detect_local)
    }

    /// A node that is new is known at once; what changes for one that is known, all routes have to say.
    fn tunnel_set(&mut self, route: &Route) -> Result<bool, EbpfError> {
        let overlay = self.view.overlay_ifindex;
        let tunnel = overlay.and_then(|overlay| tunnels::of_route(route, overlay));
        let nodes = &self.view.tunnels.nodes;
        match (nodes.get(&route.destination), tunnel) {
            (None, Some(tunnel)) => {
                let (dir, answering) = (self.settings.pin_dir(), self.answering.borrow());
                tunnels::add(&dir, &mut self.view.tunnels, tunnel, answering.as_ref())?;
                Ok(false)
            }
            (None, None) => Ok(false),
            (Some(known), tunnel) => Ok(tunnel.is_none_or(|(_, remote)| remote != *known)),
        }
    }

    /// A pod's link or the overlay gets its programs at once; other links are known by their addresses.
    fn link_set(&mut self, link: &Link) -> Result<bool, EbpfError> {
        let Some(role) = node::role_by_name(&link.name, &self.settings.detect_local) else {
            return Ok(false);
        };
        let Some(node_link) = NodeLink::new(link, role) else {
            return Ok(true);
        };
        let Some(active) = &mut self.active else {
            return Ok(false);
        };
        if active.attachments.attached().contains_key(&link.index) {
            return Ok(false);
        }
        match active.attach(&self.netns, link.index, &node_link) {
            Ok(()) => {
                tracing::debug!(link = %link.name, %role, "attached");
                self.view.links.insert(link.index, node_link);
                Ok(role != Role::Pod)
            }
            // Gone again already, as a short-lived pod's link may be; if not, the look at the whole node says so.
            Err(error) => {
                tracing::debug!(link = %link.name, %error, "not attached");
                Ok(true)
            }
        }
    }

    /// Clients of Services with affinity whose time is over. Seldom: a client that comes in the moment between being found and being
    /// deleted may get another endpoint next time.
    fn forget_clients(&self) {
        let (dir, timeouts) = (self.settings.pin_dir(), affinity::timeouts(&self.image));
        tokio::task::spawn_blocking(move || {
            match affinity::forget(&dir, &timeouts, sys::monotonic_ns()) {
                Ok(deleted) => tracing::debug!(deleted, "forgot clients whose time is over"),
                Err(error) => tracing::warn!(%error, "cannot forget clients whose time is over"),
            }
        });
    }

    fn collect(&self) {
        let Some(active) = &self.active else { return };
        let flows = active.tables.flows.clone();
        let shared = self.shared.clone();
        let services = Room::for_plan(&self.image, &[]);
        let look = move || shared.look_through(services, || gc::pass(&flows, sys::monotonic_ns()));
        tokio::task::spawn_blocking(move || match look() {
            Ok((entries, deleted)) => tracing::debug!(entries, deleted, "looked for silent flows"),
            Err(error) => tracing::warn!(%error, "cannot look for silent flows"),
        });
    }
}
