//! One comparison of the kernel with the mesh: observe, diff, apply, publish.
//!
//! After a comparison that succeeded the kernel is known: of a changed Node only its own part is then compared with the image
//! of it, and nothing is listed. What others do to the kernel is heard as events; one that does not fit the image, a failure,
//! and the audit make the next comparison list everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_cni::node::NodeFile;
use seaway_kernel::{CommandError, Error, Event, Link, Netlink, Offload, Sysctl};
use seaway_model::ownership::VXLAN_LINK;
use seaway_model::{Family, InputEvent, Node};

use crate::admin::{CONNECTED, Change, PeerStatus, Peers, Status};
use crate::apply::{Failure, apply};
use crate::chain::Place;
use crate::change::{Part, change};
use crate::diff::{Operation, diff};
use crate::egress;
use crate::files::Places;
use crate::guard::{Guard, Rules};
use crate::image::Image;
use crate::mesh::{self, Member, Roster, canonical};
use crate::observe::{Observed, observe, underlay};
use crate::plan::{Desired, Findings, Manner, Settings, Underlay, Way};
use crate::probe::{Aim, Targets};

/// Keeps what has been heard, and brings the kernel in step with it.
#[derive(Debug)]
pub struct Reconciler {
    netlink: Netlink,
    sysctl: Sysctl,
    node_name: String,
    settings: Settings,
    places: Places,
    guard: Result<Guard, Error>,
    nodes: BTreeMap<Arc<str>, Node>,
    findings: Findings,
    /// Of whom something new was heard or found since the last comparison.
    changed: BTreeSet<Arc<str>>,
    /// The device was found with checksum offload off: somebody had a reason, and with it off nothing can be found out.
    adopted_off: Option<bool>,
    synced: bool,
    /// What is in the kernel; `None` when that has to be looked at.
    image: Option<Image>,
    /// What the status says of this node, for as long as there is an image.
    status: Status,
    history: BTreeMap<Arc<str>, (Member, Change)>,
}

/// What a comparison did and found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Without the peers,
    pub status: Status,
    /// which are here.
    pub peers: Peers,
    /// Whether all that is in the kernel was listed.
    pub listed: bool,
    /// Changes that were made.
    pub operations: usize,
    /// Nodes that are left out.
    pub problems: usize,
    /// Whom to probe from now on, if that is known.
    pub aim: Option<Aim>,
}

/// The mesh, and what follows from it.
struct Wanted {
    roster: Roster,
    underlay: Underlay,
    desired: Desired,
}

impl Reconciler {
    /// Nothing is touched before [`Reconciler::hear`] was told that all Nodes are known.
    pub fn new(
        netlink: Netlink,
        sysctl: Sysctl,
        node_name: String,
        settings: Settings,
        places: Places,
    ) -> Self {
        Self {
            netlink,
            sysctl,
            node_name,
            settings,
            places,
            guard: Guard::open(),
            nodes: BTreeMap::new(),
            findings: Findings::default(),
            changed: BTreeSet::new(),
            adopted_off: None,
            synced: false,
            image: None,
            status: Status::default(),
            history: BTreeMap::new(),
        }
    }

    /// Takes an input in; answers whether it calls for a comparison.
    pub fn hear(&mut self, event: InputEvent) -> bool {
        match event {
            InputEvent::Node(name, node) => {
                let before = match node.clone() {
                    Some(node) => self.nodes.insert(name.clone(), node),
                    None => self.nodes.remove(&name),
                };
                let new = before != node;
                if new {
                    self.changed.insert(name);
                }
                new && self.synced
            }
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
        let before = std::mem::replace(&mut self.findings, findings);
        let names = before.mtu.keys().chain(self.findings.mtu.keys());
        let other = names.filter(|name| before.mtu.get(*name) != self.findings.mtu.get(*name));
        self.changed.extend(other.cloned());
        before != self.findings && self.synced
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

    /// The next comparison lists everything; answers whether there can be one.
    pub async fn distrust(&mut self) -> bool {
        self.image = None;
        if let Ok(guard) = &mut self.guard
            && let Err(error) = guard.audit()
        {
            tracing::warn!("{error}");
        }
        self.synced
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
        match self.some(outcome).await {
            Some(errors) => errors,
            None => self.everything(outcome).await,
        }
    }

    /// Brings about what changed. `None` if that does not do: the kernel has to be looked at, or it concerns everybody.
    async fn some(&mut self, outcome: &mut Outcome) -> Option<Vec<String>> {
        let changed = std::mem::take(&mut self.changed);
        let mut image = self.image.take()?;
        let own = mesh::own(&self.nodes, &self.node_name).ok()?;
        if own != image.node {
            return None;
        }
        let findings = self.findings();
        let manner = Manner {
            settings: &self.settings,
            underlay: &image.underlay,
            findings: &findings,
        };
        let (roster, desired) = (&mut image.roster, &mut image.desired);
        let part = change(roster, desired, &self.nodes, &changed, manner)?;
        outcome.status = self.status.clone();
        outcome.problems = image.roster.left_out();
        let warning = self.guard_part(&part, &image);
        outcome.status.warnings.extend(warning);
        let observed = Observed::image(&part.before, image.device.clone());
        let operations = diff(&part.after, &observed);
        outcome.operations += operations.len();
        let failures = apply(&self.netlink, &self.sysctl, operations).await;
        outcome.aim = Some(aim(&part, &image.roster));
        let peers = part.names.iter().map(|name| {
            let status = self.peer(name, &image.roster, &part.after, &failures);
            (name.clone(), status)
        });
        outcome.peers = Peers::Some(peers.collect());
        let errors: Vec<_> = failures.iter().map(|f| f.error.to_string()).collect();
        if errors.is_empty() {
            image.desired.take_peers(part.after);
            self.image = Some(image);
        }
        Some(errors)
    }

    async fn everything(&mut self, outcome: &mut Outcome) -> Vec<String> {
        outcome.listed = true;
        if let Err(error) = self.adopt().await {
            return vec![error.to_string()];
        }
        let wanted = match self.wanted(outcome).await {
            Ok(wanted) => wanted,
            Err(error) => return vec![error],
        };
        let (roster, desired) = (&wanted.roster, &wanted.desired);
        outcome.problems = roster.left_out();
        outcome.status.mtu = Some(desired.device.mtu);
        outcome.status.checksum_offload = desired.device.checksum_offload;
        let observed = match observe(&self.netlink, &self.sysctl, desired.settings.keys()).await {
            Ok(observed) => observed,
            Err(error) => return vec![error.to_string()],
        };
        self.status = outcome.status.clone();
        // Before the routes: a new peer is no stranger when its first packet comes.
        let warning = self.guard_all(roster.own(), &wanted.underlay, desired.known.clone());
        outcome.status.warnings.extend(warning);
        let operations = diff(desired, &observed);
        outcome.operations += operations.len();
        let failures = apply(&self.netlink, &self.sysctl, operations).await;
        outcome.aim = Some(Aim::All(targets(&wanted)));
        self.history
            .retain(|name, _| roster.verdict(name).is_some());
        let peers = self.nodes.keys().cloned().collect::<Vec<_>>().into_iter();
        let peers = peers.filter_map(|name| {
            let status = self.peer(&name, roster, desired, &failures)?;
            Some((name, status))
        });
        outcome.peers = Peers::All(peers.collect());
        let mut errors: Vec<_> = failures.iter().map(|f| f.error.to_string()).collect();
        errors.extend(self.chains(roster.own(), outcome).await);
        if !failures.iter().any(Failure::is_vital) {
            errors.extend(self.publish(roster.own(), desired.device.mtu));
        }
        if errors.is_empty() {
            let found = observed.device.as_ref().map(|seen| &seen.link);
            match self.picture(wanted, found).await {
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

    fn findings(&self) -> Findings {
        Findings {
            offload_broken: self.findings.offload_broken || self.adopted_off == Some(true),
            ..self.findings.clone()
        }
    }

    /// What should be.
    async fn wanted(&self, outcome: &mut Outcome) -> Result<Wanted, String> {
        let mut own = mesh::own(&self.nodes, &self.node_name).map_err(|p| p.to_string())?;
        outcome.status.address = Some(own.address.to_string());
        outcome.status.pod_cidrs = strings(&own.pod_cidrs);
        let stray = egress::stray(&own.pod_cidrs, &self.settings.cluster_cidrs);
        outcome.status.warnings.extend(stray);
        let others = self.nodes.values().flat_map(|node| &node.addresses);
        let others: Vec<IpAddr> = others.copied().collect();
        let underlay = underlay(&self.netlink, &own, &others)
            .await
            .map_err(|error| error.to_string())?;
        let uplink = underlay.of(Family::of(own.address));
        let Some(uplink) = uplink else {
            return Err(format!(
                "address {} of this node is on none of its links: correct status.addresses of Node {}, or --node-name",
                own.address, own.name
            ));
        };
        outcome.status.uplink = Some(uplink.name.clone());
        own.second = own.second.filter(|address| {
            let there = underlay.of(Family::of(*address)).is_some();
            if !there {
                outcome.status.warnings.push(format!(
                    "address {address} of this node is on none of its links, so peers are not reached by that family"
                ));
            }
            there
        });
        let roster = Roster::new(own, &self.nodes);
        let manner = Manner {
            settings: &self.settings,
            underlay: &underlay,
            findings: &self.findings(),
        };
        let desired = manner.plan(&roster);
        outcome.status.warnings.extend(desired.too_narrow());
        Ok(Wanted {
            roster,
            underlay,
            desired,
        })
    }

    /// What the kernel is now known to hold.
    async fn picture(&self, wanted: Wanted, found: Option<&Link>) -> Result<Image, String> {
        let device = self.netlink.link(VXLAN_LINK).await;
        let device: Link = device
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("link {VXLAN_LINK} has just been deleted"))?;
        let node = mesh::own(&self.nodes, &self.node_name).map_err(|p| p.to_string())?;
        Ok(Image::new(
            node,
            wanted.roster,
            wanted.underlay,
            wanted.desired,
            device,
            found,
        ))
    }

    fn guard_part(&mut self, part: &Part, image: &Image) -> Option<String> {
        let (before, after) = (&part.before.known, &part.after.known);
        let gone = before.difference(after).copied().collect();
        let new = after.difference(before).copied().collect();
        match self.guard.as_mut().map(|guard| guard.change(gone, new)) {
            Ok(Ok(true)) => None,
            // It has to be told everything, or says once more why that is not possible.
            _ => {
                let known = image.desired.known.union(after).copied().collect();
                self.guard_all(image.roster.own(), &image.underlay, known)
            }
        }
    }

    fn guard_all(
        &mut self,
        own: &Member,
        underlay: &Underlay,
        known: BTreeSet<IpAddr>,
    ) -> Option<String> {
        let rules = Rules {
            port: self.settings.port,
            known,
            own: own.addresses().collect(),
            uplinks: underlay.names(),
        };
        let set = match &mut self.guard {
            Ok(guard) => guard.set(rules).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let why = set.err()?;
        Some(format!("VXLAN is taken from anybody: {why}"))
    }

    async fn chains(&self, own: &Member, outcome: &mut Outcome) -> Vec<String> {
        let Settings {
            cluster_cidrs,
            masquerade_exclusions,
            forward_rules,
            ..
        } = &self.settings;
        let forwarded = if *forward_rules {
            &cluster_cidrs[..]
        } else {
            &[]
        };
        let mut errors = Vec::new();
        let mut done = |changed: Result<bool, CommandError>| match changed {
            Ok(changed) => outcome.operations += usize::from(changed),
            Err(error) => errors.push(error.to_string()),
        };
        for cidr in &own.pod_cidrs {
            let family = Family::of(cidr.ip());
            let masquerade = egress::masquerade(*cidr, cluster_cidrs, masquerade_exclusions);
            done(masquerade.sync().await);
            done(egress::forward(family, forwarded).sync().await);
        }
        for family in self.left_behind(own) {
            done(Place::egress(family).remove().await);
            done(Place::forward(family).remove().await);
        }
        errors
    }

    /// The families of which this node had pod CIDRs, by the file for the plugin, and has none any more.
    fn left_behind(&self, own: &Member) -> BTreeSet<Family> {
        let of = |cidrs: &[IpNetwork]| -> BTreeSet<Family> {
            cidrs.iter().map(|cidr| Family::of(cidr.ip())).collect()
        };
        let before = NodeFile::read(&self.places.run_dir).map(|file| of(&file.pod_cidrs));
        &before.unwrap_or_default() - &of(&own.pod_cidrs)
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

    /// What there is to say of a peer; `None` of one that is gone.
    fn peer(
        &mut self,
        name: &Arc<str>,
        roster: &Roster,
        desired: &Desired,
        failures: &[Failure],
    ) -> Option<PeerStatus> {
        let peer = match roster.verdict(name) {
            Some(Ok(peer)) => peer,
            other => {
                self.history.remove(name);
                let problem = other?.as_ref().err()?;
                return Some(PeerStatus::new(name, problem.to_string()));
            }
        };
        let ends = roster.own().ends(peer);
        Some(PeerStatus {
            address: ends.map(|(_, theirs)| theirs.to_string()),
            pod_cidrs: strings(&peer.pod_cidrs),
            via: Some(via(peer, desired)),
            last_change: Some(self.remember(peer)),
            ..PeerStatus::new(name, state(peer, failures))
        })
    }

    /// Notes what is new of a peer; answers what was new last.
    fn remember(&mut self, peer: &Member) -> Change {
        let change = match self.history.get(&peer.name) {
            Some((before, change)) if before == peer => return change.clone(),
            Some((before, _)) => Change::now(moved(before, peer)),
            None => Change::now("joined".into()),
        };
        let entry = (peer.clone(), change.clone());
        self.history.insert(peer.name.clone(), entry);
        change
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

/// Where a peer is probed: on the way that packets of pods go.
fn target(peer: &Member) -> Option<IpAddr> {
    Some(peer.pod_cidrs.first()?.network())
}

fn targets(wanted: &Wanted) -> Targets {
    let peers = wanted.roster.peers();
    let peers = peers.filter_map(|peer| Some((peer.name.clone(), target(peer)?)));
    Targets {
        peers: peers.collect(),
        known: wanted.desired.known.iter().copied().collect(),
        full: wanted.desired.device.mtu,
        offloaded: wanted.desired.device.checksum_offload,
    }
}

fn aim(part: &Part, roster: &Roster) -> Aim {
    let peers = part.names.iter().map(|name| {
        let peer = roster
            .verdict(name)
            .and_then(|verdict| verdict.as_ref().ok());
        (name.clone(), peer.and_then(target))
    });
    Aim::Some {
        peers: peers.collect(),
        gone: part.before.known.clone(),
        new: part.after.known.clone(),
    }
}

fn strings(cidrs: &[IpNetwork]) -> Vec<String> {
    cidrs.iter().map(ToString::to_string).collect()
}

fn via(peer: &Member, desired: &Desired) -> String {
    let ways = peer.pod_cidrs.iter().filter_map(|cidr| {
        Some(match desired.routes.get(&canonical(*cidr))?.way {
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
