//! The data plane: tables, programs and attachments as one, in step with the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seaway_ebpf_abi::Verdict;
use seaway_ebpf_abi::config::CONFIG_HANDOVER;
use seaway_kernel::{Event, Link, NetNs, Netlink, Route, Watch, WatchGroups};
use seaway_model::{Change, Desired};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::config::EbpfConfig;
use super::environment::has_tcx;
use super::error::EbpfError;
use super::image::Image;
use super::links::{Attachments, attach_order};
use super::node::{self, NodeLink, NodeView};
use super::objects::Programs;
use super::observe::{self, Observed, Shared};
use super::pending::pending;
use super::plan::{self, EbpfPlan};
use super::room::Room;
use super::tables::Tables;
use super::{bpffs, cleanup, dump, features, gc, sys, tunnels, upgrade};
use crate::dataplane::{ApplyError, Dataplane, Report};
use crate::flows::Names;
use crate::task::finished;

/// How often silent flows are looked for.
const GC_INTERVAL: Duration = Duration::from_secs(15);
/// How often the kernel is compared with the image.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// Services by socket hooks and tc programs.
///
/// Everything happens in the network namespace that the thread which called [`EbpfDataplane::new`] was in. Dropping the
/// value changes nothing in the kernel: traffic goes on, and the next one adopts what is pinned.
pub struct EbpfDataplane {
    pub(super) settings: EbpfConfig,
    pub(super) netns: NetNs,
    pub(super) image: Image,
    shared: Arc<Shared>,
    pub(super) view: NodeView,
    /// What begins is left to rules.
    pub(super) handover: bool,
    /// The programs have been told of the node as `view` has it.
    told: bool,
    /// What was not loaded or attached when the kernel was last looked at.
    pending: Vec<String>,
    names: Names,
    active: Option<Active>,
    following: Option<Following>,
}

/// What exists once the programs are in force.
struct Active {
    programs: Programs,
    attachments: Attachments,
    tables: Tables,
    /// Tables that the programs write which are still at work, if larger ones are to take their place.
    outgrown: Option<Tables>,
}

/// What is needed to keep in step with the node.
struct Following {
    netlink: Netlink,
    watch: Watch,
    /// The node has changed since it was last read.
    stale: bool,
    /// The look at the whole node that is under way, if any. A task of its own: whoever waits for events is called away
    /// whenever a Service changes, and that may happen faster than a node with many links is read.
    reading: JoinSet<Result<NodeView, EbpfError>>,
    gc: Interval,
    audit: Interval,
}

impl EbpfDataplane {
    /// A data plane for the network namespace of the calling thread. Touches nothing yet.
    ///
    /// # Errors
    ///
    /// If that namespace cannot be opened.
    pub fn new(settings: EbpfConfig) -> Result<Self, EbpfError> {
        Ok(Self {
            shared: Arc::new(Shared::new(settings.pin_dir())),
            settings,
            netns: NetNs::current()?,
            image: Image::default(),
            view: NodeView::default(),
            handover: false,
            told: false,
            pending: Vec::new(),
            names: Names::default(),
            active: None,
            following: None,
        })
    }

    /// What the programs did so far, summed over CPUs; empty if nothing is loaded.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read.
    pub fn counters(&self) -> Result<Vec<(Verdict, u64)>, EbpfError> {
        observe::counters(&self.settings.pin_dir())
    }

    /// Shows what is counted to the metrics, for as long as this value lives.
    #[must_use]
    pub fn observed_by(self, observed: &Observed) -> Self {
        observed.show(&self.shared);
        self
    }

    async fn look(&mut self) -> Result<(), EbpfError> {
        if self.active.is_none() {
            features::check()?;
            bpffs::check_cgroup(&self.settings.cgroup_root)?;
        }
        // Subscribe first, list then: what changes in between is seen twice rather than never.
        let following = match self.following.take() {
            Some(following) => following,
            None => follow(&self.netns)?,
        };
        let following = self.following.insert(following);
        following.reading = JoinSet::new();
        following.stale = false;
        self.view = node::read(&following.netlink, &self.settings.detect_local).await?;
        self.told = false;
        self.image = match Tables::open(&self.settings.pin_dir())? {
            Some(tables) => tables.image()?,
            None => Image::default(),
        };
        self.pending = pending(&self.settings, &self.view)?;
        Ok(())
    }

    /// Shows in its dump to which Services frontends and flows belong.
    #[must_use]
    pub fn naming(mut self, desired: &Desired) -> Self {
        self.names = Names::of(desired);
        self
    }

    /// What has to be done before map entries have any effect, in words.
    fn activation(&self) -> Vec<String> {
        match self.active {
            Some(_) => Vec::new(),
            None => self.pending.clone(),
        }
    }

    async fn execute(&mut self, plan: EbpfPlan) -> Result<Report, EbpfError> {
        let started = Instant::now();
        for notice in &plan.notices {
            tracing::warn!("{notice}");
        }
        let room = Room::for_plan(&self.image, &plan.ops);
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.tables.lack(&room))
        {
            // Other programs have to be put behind the links, as after a start.
            self.active = None;
        }
        let first = self.active.is_none();
        if first {
            self.load(&room)?;
        }
        // Not for a change of a Service, which says nothing about the node.
        let node_writes = match first || !self.told {
            true => self.write_node()?,
            false => 0,
        };
        let Some(active) = &mut self.active else {
            return Ok(Report::default());
        };
        let mut report = active.tables.execute(&plan.ops, &mut self.image)?;
        if first {
            // Once more: writing all Services takes a while, in which flows go on beginning in what we take over.
            upgrade::carry(&self.settings, &active.tables)?;
            if let Some(former) = &active.outgrown {
                active.tables.take_in(former)?;
            }
            let attached = active
                .attachments
                .attach_cgroup(&active.programs, &self.settings.cgroup_root)
                .and_then(|()| self.attach_links())
                .and_then(|()| self.inherit())
                .and_then(|()| cleanup::supersede(&self.settings));
            if let Err(error) = attached {
                // The next attempt starts from the pins again.
                self.active = None;
                return Err(error);
            }
        }
        self.shared.update(plan.owners);
        report.operations += node_writes;
        report.took = started.elapsed();
        Ok(report)
    }

    /// Loads the programs, with tables that have room for that.
    fn load(&mut self, room: &Room) -> Result<(), EbpfError> {
        let dir = self.settings.pin_dir();
        bpffs::create_dir(&self.settings.link_dir())?;
        let mut outgrown = None;
        if let Some(tables) = Tables::open(&dir)? {
            tables.enlarge(&dir, room)?;
            if tables.outgrow(&dir, &self.settings.sizes)? {
                outgrown = Some(tables);
            }
        }
        let programs = Programs::load(&dir, room.sizes(self.settings.sizes))?;
        let tables = Tables::open(&dir)?.ok_or_else(|| EbpfError::Load {
            object: "the maps".to_owned(),
            reason: format!("not all of them are pinned in {}", dir.display()),
        })?;
        if let Some(carried) = upgrade::carry(&self.settings, &tables)? {
            upgrade::inherit_links(&self.settings)?;
            tracing::info!(%carried, "taking over from a build with the layout before ours");
        }
        let tcx = match self.settings.tcx {
            Some(tcx) => tcx,
            None => has_tcx(),
        };
        self.active = Some(Active {
            programs,
            attachments: Attachments::new(self.settings.link_dir(), tcx, self.settings.xdp),
            tables,
            outgrown,
        });
        Ok(())
    }

    /// Takes over what came into the tables of programs before ours until their links had ours: of the layout before, or of
    /// smaller tables.
    fn inherit(&mut self) -> Result<(), EbpfError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        upgrade::carry(&self.settings, &active.tables)?;
        if let Some(former) = active.outgrown.take() {
            let entries = active.tables.take_in(&former)?;
            tracing::info!(entries, "took over what came into smaller tables meanwhile");
        }
        Ok(())
    }

    /// What is attached is another's from now on: the next plan begins from the pins.
    pub(super) fn let_go(&mut self) {
        self.active = None;
    }

    /// Nothing is loaded any more.
    pub(super) fn reset(&mut self) {
        self.active = None;
        self.image = Image::default();
        self.shared.forget();
        self.handover = false;
    }

    /// Compares the kernel with what is believed to be there.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn difference(&self) -> Result<Option<String>, EbpfError> {
        self.audit()
    }

    /// Tells the programs of the node as it is now.
    fn write_node(&mut self) -> Result<usize, EbpfError> {
        let Some(active) = &self.active else {
            return Ok(0);
        };
        let cookie = self.netns.cookie()?;
        let ports = {
            let _inside = self.netns.enter()?;
            node::socket_ports()?
        };
        let mut config = node::config(&self.view, &self.settings, cookie, ports);
        if self.handover {
            config.flags |= CONFIG_HANDOVER;
        }
        let addresses = node::addresses(&self.view, &self.settings);
        let tunnels = tunnels::write(&self.settings.pin_dir(), &self.view.tunnels)?;
        let writes = tunnels + active.tables.write_node(&config, &addresses)?;
        self.told = true;
        Ok(writes)
    }

    /// Attaches to every link that should have programs, and lets go of the others.
    fn attach_links(&mut self) -> Result<(), EbpfError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        active.attachments.retain(&self.view.links)?;
        for (index, link) in attach_order(&self.view.links) {
            if active.attachments.attached().contains_key(&index) {
                continue;
            }
            match attach(&self.netns, active, index, link) {
                // Gone since it was listed, as a short-lived pod's link may be; that is an event of its own.
                Err(_) if !is_there(&self.netns, index)? => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Brings everything in step with the node as it was read.
    fn refresh(&mut self, view: NodeView) -> Result<(), EbpfError> {
        self.view = view;
        self.told = false;
        self.write_node()?;
        self.attach_links()
    }

    /// Deals with one change of the node. Returns whether the rest of the node has to be looked at.
    fn event(&mut self, event: Event) -> Result<bool, EbpfError> {
        if let Some(active) = &self.active {
            active.tables.new_epoch()?;
        }
        match event {
            Event::LinkSet(link) => self.link_set(&link),
            Event::LinkDeleted(link) => {
                let Some(gone) = self.view.links.remove(&link.index) else {
                    return Ok(false);
                };
                if let Some(active) = &mut self.active {
                    active.attachments.retain(&self.view.links)?;
                }
                Ok(gone.role != node::Role::Pod)
            }
            Event::AddressSet(_) | Event::AddressDeleted(_) => Ok(true),
            Event::RouteSet(route) => Ok(self.tunnel_set(&route)? || self.matters(&route)),
            Event::RouteDeleted(route) => {
                Ok(
                    self.view.tunnels.nodes.contains_key(&route.destination)
                        || self.matters(&route),
                )
            }
            Event::NeighbourSet(_) | Event::NeighbourDeleted(_) => Ok(false),
        }
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
                tunnels::add(&self.settings.pin_dir(), &mut self.view.tunnels, tunnel)?;
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
        let Some(active) = &mut self.active else {
            return Ok(false);
        };
        if active.attachments.attached().contains_key(&link.index) {
            return Ok(false);
        }
        let name = link.name.clone();
        let node_link = NodeLink { name, role };
        match attach(&self.netns, active, link.index, &node_link) {
            Ok(()) => {
                tracing::debug!(link = %link.name, %role, "attached");
                self.view.links.insert(link.index, node_link);
                Ok(role != node::Role::Pod)
            }
            // Gone again already, as a short-lived pod's link may be; if not, the look at the whole node says so.
            Err(error) => {
                tracing::debug!(link = %link.name, %error, "not attached");
                Ok(true)
            }
        }
    }

    /// Compares the kernel with what we believe; what differs.
    fn audit(&self) -> Result<Option<String>, EbpfError> {
        let Some(active) = &self.active else {
            return Ok(None);
        };
        if let Some(lost) = active.attachments.lost()? {
            return Ok(Some(format!("{lost} is no longer attached")));
        }
        let Some(tables) = Tables::open(&self.settings.pin_dir())? else {
            return Ok(Some("a map is no longer pinned".to_owned()));
        };
        Ok((!tables.hold(&self.image)?).then(|| "the maps were changed from outside".to_owned()))
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

    async fn attend(&mut self) -> Result<String, EbpfError> {
        enum Due {
            Event(Option<Event>),
            Node(Result<NodeView, EbpfError>),
            Gc,
            Audit,
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
            let due = tokio::select! {
                // After what is being read, which may be older: in the order in which things happened.
                event = following.watch.next(), if following.reading.is_empty() => Due::Event(event),
                Some(read) = following.reading.join_next() => Due::Node(finished(read)),
                _ = following.gc.tick() => Due::Gc,
                _ = following.audit.tick() => Due::Audit,
            };
            match due {
                Due::Event(Some(event)) => {
                    let stale = self.event(event)?;
                    if let Some(following) = &mut self.following {
                        following.stale |= stale;
                    }
                }
                Due::Node(view) => self.refresh(view?)?,
                Due::Event(None) => {
                    following.watch = subscribe(&self.netns)?;
                    following.stale = true;
                }
                Due::Gc => self.collect(),
                Due::Audit => {
                    // Of what there is no event: the ports that sockets of the node take.
                    self.write_node()?;
                    if let Some(difference) = self.audit()? {
                        // Whatever was lost is set up anew from the pins that are left.
                        self.active = None;
                        return Ok(difference);
                    }
                }
            }
        }
    }
}

fn attach(
    netns: &NetNs,
    active: &mut Active,
    index: u32,
    link: &NodeLink,
) -> Result<(), EbpfError> {
    let _inside = netns.enter()?;
    active.attachments.attach(&mut active.programs, index, link)
}

fn is_there(netns: &NetNs, index: u32) -> Result<bool, EbpfError> {
    let _inside = netns.enter()?;
    Ok(nix::net::if_::if_indextoname(index).is_ok())
}

fn subscribe(netns: &NetNs) -> Result<Watch, EbpfError> {
    let groups = WatchGroups {
        links: true,
        addresses: true,
        routes: true,
        neighbours: false,
    };
    Ok(Watch::in_namespace(netns, groups)?)
}

fn follow(netns: &NetNs) -> Result<Following, EbpfError> {
    let every = |period: Duration| {
        let mut interval = interval_at(tokio::time::Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    };
    Ok(Following {
        watch: subscribe(netns)?,
        netlink: Netlink::in_namespace(netns)?,
        stale: false,
        reading: JoinSet::new(),
        gc: every(GC_INTERVAL),
        audit: every(AUDIT_INTERVAL),
    })
}

impl Dataplane for EbpfDataplane {
    type Plan = EbpfPlan;

    async fn observe(&mut self) -> Result<(), ApplyError> {
        Ok(self.look().await?)
    }

    fn plan(&self, desired: &Desired, change: &Change) -> EbpfPlan {
        let mut plan = plan::plan(
            &self.image,
            &self.shared.owners(),
            desired,
            change,
            (&self.settings.detect_local, self.settings.maglev_seed),
        );
        plan.activation = self.activation();
        plan
    }

    async fn apply(&mut self, plan: EbpfPlan) -> Result<Report, ApplyError> {
        Ok(self.execute(plan).await?)
    }

    async fn watch(&mut self) -> Result<String, ApplyError> {
        Ok(self.attend().await?)
    }

    async fn dump(&mut self) -> Result<String, ApplyError> {
        Ok(dump::dump(&self.settings, &self.names)?)
    }

    async fn cleanup(&mut self) -> Result<Vec<String>, ApplyError> {
        self.active = None;
        let netlink = Netlink::in_namespace(&self.netns).map_err(EbpfError::from)?;
        // Filters are found by the calling thread's namespace.
        let lines = cleanup::cleanup(&self.settings, &netlink, &self.netns).await?;
        self.reset();
        Ok(lines)
    }
}
