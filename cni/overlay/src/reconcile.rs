//! One comparison of the kernel with the mesh: observe, diff, apply, publish.
//!
//! After a comparison that succeeded the kernel is known: a change of a Node is then compared with the image of it, and
//! nothing is listed. What others do to the kernel is heard as events; one that does not fit the image, a failure, and
//! the audit make the next comparison list everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_cni::node::NodeFile;
use seaway_kernel::{Error, Event, Link, Netlink, Offload};
use seaway_model::ownership::VXLAN_LINK;
use seaway_model::{InputEvent, Node};

use crate::admin::{CONNECTED, Change, PeerStatus, Status};
use crate::apply::{Failure, apply};
use crate::diff::{Operation, diff};
use crate::egress::{self, Egress};
use crate::files::Places;
use crate::guard::{Guard, Rules};
use crate::image::Image;
use crate::mesh::{self, Member, Problem};
use crate::observe::{Observed, observe, underlay};
use crate::plan::{Desired, Findings, Settings, Underlay, Way, plan};
use crate::probe::Targets;

/// Keeps what has been heard, and brings the kernel in step with it.
#[derive(Debug)]
pub struct Reconciler {
    netlink: Netlink,
    node_name: String,
    settings: Settings,
    places: Places,
    guard: Result<Guard, Error>,
    nodes: BTreeMap<Arc<str>, Node>,
    findings: Findings,
    /// The device was found with checksum offload off: somebody had a reason, and with it off nothing can be found out.
    adopted_off: Option<bool>,
    synced: bool,
    /// What is in the kernel; `None` when that has to be looked at.
    image: Option<Image>,
    history: BTreeMap<Arc<str>, (Member, Change)>,
}

/// What a comparison did and found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub status: Status,
    /// Changes that were made.
    pub operations: usize,
    /// Nodes that are left out.
    pub problems: usize,
    /// Whom to probe from now on, if that is known.
    pub targets: Option<Targets>,
}

/// The mesh, and what follows from it.
struct Wanted {
    own: Member,
    underlay: Underlay,
    peers: Vec<Member>,
    problems: Vec<Problem>,
    desired: Desired,
}

impl Reconciler {
    /// Nothing is touched before [`Reconciler::hear`] was told that all Nodes are known.
    pub fn new(netlink: Netlink, node_name: String, settings: Settings, places: Places) -> Self {
        Self {
            netlink,
            node_name,
            settings,
            places,
            guard: Guard::open(),
            nodes: BTreeMap::new(),
            findings: Findings::default(),
            adopted_off: None,
            synced: false,
            image: None,
            history: BTreeMap::new(),
        }
    }

    /// Takes an input in; answers whether it calls for a comparison.
    pub fn hear(&mut self, event: InputEvent) -> bool {
        match event {
            InputEvent::Node(name, Some(node)) => {
                let before = self.nodes.insert(name, node.clone());
                self.synced && before != Some(node)
            }
            InputEvent::Node(name, None) => self.nodes.remove(&name).is_some() && self.synced,
            InputEvent::Synced => {
                self.synced = true;
                true
            }
            InputEvent::Findings(_, _, found) => {
                for finding in found {
                    tracing::warn!(object = %finding.object, field = %finding.field, consequence = %finding.consequence, "cannot use a field");
                }
                false
            }
            InputEvent::Service(..) | InputEvent::Slice(..) => false,
        }
    }

    /// Takes in what probing found; answers whether it calls for a comparison.
    pub fn find(&mut self, findings: Findings) -> bool {
        let new = self.findings != findings;
        self.findings = findings;
        new && self.synced
    }

    /// Whether a change in the kernel concerns us: it does not fit what we made.
    pub fn concerns(&mut self, event: &Event) -> bool {
        let concerns = match &mut self.image {
            Some(image) => !image.fits(event),
            // Everything will be looked at anyway; until then only what can make a failure succeed matters.
            None => matches!(
                event,
                Event::LinkSet(_) | Event::AddressSet(_) | Event::LinkDeleted(_)
            ),
        };
        if concerns {
            self.image = None;
        }
        concerns && self.synced
    }

    /// The next comparison lists everything.
    pub async fn distrust(&mut self) {
        self.image = None;
        if let Ok(guard) = &mut self.guard
            && let Err(error) = guard.audit()
        {
            tracing::warn!("{error}");
        }
    }

    /// How many packets of strangers were dropped. `None` if nobody looks at them at the moment, which calls for a
    /// comparison.
    pub fn strangers(&mut self) -> Option<u64> {
        match self.guard.as_mut() {
            Ok(guard) => guard.strangers().ok().flatten(),
            // It will not come: that is in the status already.
            Err(_) => Some(0),
        }
    }

    /// Whether anything is known of the mesh yet.
    pub fn is_settled(&self) -> bool {
        self.image.is_some()
    }

    /// Compares and mends. Before all Nodes are known it does nothing, so that a restart never takes away what it has
    /// not heard of yet.
    pub async fn sync(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.status.node.clone_from(&self.node_name);
        outcome.status.vni = self.settings.vni;
        outcome.status.port = self.settings.port;
        if !self.synced {
            return outcome;
        }
        let errors = self.bring_up(&mut outcome).await;
        outcome.status.in_sync = errors.is_empty();
        outcome.status.errors = errors;
        outcome
    }

    async fn bring_up(&mut self, outcome: &mut Outcome) -> Vec<String> {
        let known = self.image.take();
        if let Err(error) = self.adopt().await {
            return vec![error.to_string()];
        }
        let wanted = match self.wanted(known.as_ref(), outcome).await {
            Ok(wanted) => wanted,
            Err(error) => return vec![error],
        };
        // The image holds for the device that it was made for, and for this node as it was.
        let known = known.filter(|image| image.own == wanted.own);
        let desired = &wanted.desired;
        outcome.problems = wanted.problems.len();
        outcome.status.mtu = Some(desired.device.mtu);
        outcome.status.checksum_offload = desired.device.checksum_offload;
        let listed = match &known {
            Some(image) => Ok(Observed::image(&image.desired, image.device.clone())),
            None => observe(&self.netlink, desired.settings.keys()).await,
        };
        let observed = match listed {
            Ok(observed) => observed,
            Err(error) => return vec![error.to_string()],
        };
        // Before the routes: a new peer is no stranger when its first packet comes.
        outcome.status.warnings.extend(self.guard_peers(&wanted));
        let operations = diff(desired, &observed);
        outcome.operations += operations.len();
        let failures = apply(&self.netlink, operations).await;
        outcome.targets = Some(targets(&wanted));
        outcome.status.peers = self.peers(&wanted, &failures);
        let mut errors: Vec<_> = failures.iter().map(|f| f.error.to_string()).collect();
        if known.is_none() {
            errors.extend(self.masquerade(&wanted.own, outcome).await);
        }
        let told = known.is_some_and(|image| image.desired.device.mtu == desired.device.mtu);
        if !told && !failures.iter().any(Failure::is_vital) {
            errors.extend(self.publish(&wanted.own, desired.device.mtu));
        }
        if errors.is_empty() {
            match self.picture(wanted).await {
                Ok(image) => self.image = Some(image),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Takes over, once, what a daemon before us found out.
    async fn adopt(&mut self) -> Result<(), Error> {
        if self.adopted_off.is_none() {
            let there = self.netlink.link(VXLAN_LINK).await?.is_some();
            self.adopted_off = Some(there && !Offload::open()?.checksum(VXLAN_LINK)?);
        }
        Ok(())
    }

    /// What should be.
    async fn wanted(&self, known: Option<&Image>, outcome: &mut Outcome) -> Result<Wanted, String> {
        let mut own = mesh::own(&self.nodes, &self.node_name).map_err(|p| p.to_string())?;
        outcome.status.address = Some(own.address.to_string());
        outcome.status.pod_cidrs = strings(&own.pod_cidrs);
        let underlay = match known.filter(|image| image.node == own) {
            Some(image) => image.underlay.clone(),
            None => underlay(&self.netlink, &own)
                .await
                .map_err(|error| error.to_string())?,
        };
        let uplink = underlay.of(seaway_model::Family::of(own.address));
        let Some(uplink) = uplink else {
            return Err(format!(
                "address {} of this node is on none of its links",
                own.address
            ));
        };
        outcome.status.uplink = Some(uplink.name.clone());
        own.second = own.second.filter(|address| {
            let there = underlay.of(seaway_model::Family::of(*address)).is_some();
            if !there {
                outcome.status.warnings.push(format!(
                    "address {address} of this node is on none of its links, so peers are not reached by that family"
                ));
            }
            there
        });
        let (peers, problems) = mesh::peers(&self.nodes, &own);
        let findings = Findings {
            offload_broken: self.findings.offload_broken || self.adopted_off == Some(true),
            ..self.findings.clone()
        };
        let desired = plan(&own, &peers, &self.settings, &underlay, &findings);
        Ok(Wanted {
            own,
            underlay,
            peers,
            problems,
            desired,
        })
    }

    /// What the kernel is now known to hold.
    async fn picture(&self, wanted: Wanted) -> Result<Image, String> {
        let device = self.netlink.link(VXLAN_LINK).await;
        let device: Link = device
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("link {VXLAN_LINK} has just been deleted"))?;
        let node = mesh::own(&self.nodes, &self.node_name).map_err(|p| p.to_string())?;
        Ok(Image::new(
            node,
            wanted.own,
            wanted.underlay,
            wanted.desired,
            device,
        ))
    }

    fn guard_peers(&mut self, wanted: &Wanted) -> Option<String> {
        let rules = Rules {
            port: self.settings.port,
            known: wanted.desired.known.clone(),
            own: wanted.own.addresses().collect(),
            uplinks: wanted.underlay.names(),
        };
        let set = match &mut self.guard {
            Ok(guard) => guard.set(rules).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let why = set.err()?;
        Some(format!("VXLAN is taken from anybody: {why}"))
    }

    async fn masquerade(&self, own: &Member, outcome: &mut Outcome) -> Vec<String> {
        let mut errors = Vec::new();
        for cidr in &own.pod_cidrs {
            let Settings {
                cluster_cidrs,
                masquerade_exclusions,
                ..
            } = &self.settings;
            match egress::sync(&Egress::new(*cidr, cluster_cidrs, masquerade_exclusions)).await {
                Ok(changed) => outcome.operations += usize::from(changed),
                Err(error) => errors.push(error.to_string()),
            }
        }
        errors
    }

    fn publish(&self, own: &Member, mtu: u32) -> Option<String> {
        let file = NodeFile {
            node_name: self.node_name.clone(),
            pod_cidrs: own.pod_cidrs.clone(),
            cluster_cidrs: self.settings.cluster_cidrs.clone(),
            mtu,
            vxlan_link: VXLAN_LINK.into(),
        };
        if let Ok(before) = NodeFile::read(&self.places.run_dir)
            && before.pod_cidrs != file.pod_cidrs
        {
            tracing::error!(
                "the pod CIDRs of node {} changed from {} to {}: pods with old addresses are no longer reached from \
                 other nodes; recreate them",
                self.node_name,
                strings(&before.pod_cidrs).join(","),
                strings(&file.pod_cidrs).join(","),
            );
        }
        match self.places.publish(&file) {
            Ok(true) => {
                tracing::info!("the node serves pods: {}", self.places.conflist().display());
                None
            }
            Ok(false) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    fn peers(&mut self, wanted: &Wanted, failures: &[Failure]) -> Vec<PeerStatus> {
        self.remember(&wanted.peers);
        let connected = wanted.peers.iter().map(|peer| {
            let ends = wanted.own.ends(peer);
            PeerStatus {
                address: ends.map(|(_, theirs)| theirs.to_string()),
                pod_cidrs: strings(&peer.pod_cidrs),
                via: Some(via(peer, &wanted.desired)),
                last_change: self
                    .history
                    .get(&peer.name)
                    .map(|(_, change)| change.clone()),
                ..PeerStatus::new(&peer.name, state(peer, failures))
            }
        });
        let left_out = wanted
            .problems
            .iter()
            .map(|problem| PeerStatus::new(problem.node(), problem.to_string()));
        connected.chain(left_out).collect()
    }

    /// Notes what is new of each peer.
    fn remember(&mut self, peers: &[Member]) {
        let mut history = BTreeMap::new();
        for peer in peers {
            let entry = match self.history.remove(&peer.name) {
                Some((before, change)) if before == *peer => (before, change),
                Some((before, _)) => (peer.clone(), Change::now(moved(&before, peer))),
                None => (peer.clone(), Change::now("joined".into())),
            };
            history.insert(peer.name.clone(), entry);
        }
        self.history = history;
    }
}

/// What is different.
fn moved(before: &Member, after: &Member) -> String {
    if before.pod_cidrs != after.pod_cidrs {
        let [before, after] = [before, after].map(|member| strings(&member.pod_cidrs).join(","));
        return format!("pod CIDRs from {before} to {after}");
    }
    let [before, after] = [before, after].map(|member| {
        let addresses: Vec<_> = member.addresses().map(|ip| ip.to_string()).collect();
        addresses.join(",")
    });
    format!("address from {before} to {after}")
}

fn targets(wanted: &Wanted) -> Targets {
    let first = |peer: &Member| {
        let cidr = peer.pod_cidrs.first()?;
        Some((peer.name.clone(), cidr.network()))
    };
    Targets {
        peers: wanted.peers.iter().filter_map(first).collect(),
        known: wanted.desired.known.iter().copied().collect(),
        full: wanted.desired.device.mtu,
        offloaded: wanted.desired.device.checksum_offload,
    }
}

fn strings(cidrs: &[IpNetwork]) -> Vec<String> {
    cidrs.iter().map(ToString::to_string).collect()
}

fn via(peer: &Member, desired: &Desired) -> String {
    let ways = peer.pod_cidrs.iter().filter_map(|cidr| {
        let destination = IpNetwork::new(cidr.network(), cidr.prefix()).ok()?;
        Some(match desired.routes.get(&destination)?.way {
            Way::Tunnel { .. } => "tunnel",
            Way::Direct { .. } => "direct",
        })
    });
    let mut ways: Vec<_> = ways.collect();
    ways.dedup();
    ways.join(",")
}

fn state(peer: &Member, failures: &[Failure]) -> String {
    let failure = failures.iter().find(|failure| match &failure.operation {
        Operation::SetRoute(destination, _) => {
            let mut cidrs = peer.pod_cidrs.iter();
            cidrs.any(|cidr| cidr.network() == destination.network())
        }
        Operation::SetNeighbour(gateway, _) => {
            peer.pod_cidrs.iter().any(|cidr| cidr.network() == *gateway)
        }
        _ => failure.is_vital(),
    });
    failure.map_or(CONNECTED.to_owned(), |f| f.error.to_string())
}
