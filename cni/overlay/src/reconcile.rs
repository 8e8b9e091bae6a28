//! One comparison of the kernel with the mesh: observe, diff, apply, publish.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_cni::node::NodeFile;
use seaway_kernel::{Event, Link, Netlink};
use seaway_model::ownership::VXLAN_LINK;
use seaway_model::{InputEvent, Node};

use crate::admin::{PeerStatus, Status};
use crate::apply::{Failure, apply};
use crate::diff::{Operation, diff};
use crate::egress::{self, Egress};
use crate::files::Places;
use crate::mesh::{Member, Mesh, mesh};
use crate::observe::{observe, uplink};
use crate::plan::{Settings, overlay_mtu, plan};

/// Keeps what has been heard, and brings the kernel in step with it.
#[derive(Debug)]
pub struct Reconciler {
    netlink: Netlink,
    node_name: String,
    settings: Settings,
    places: Places,
    nodes: BTreeMap<Arc<str>, Node>,
    synced: bool,
    uplink: Option<Link>,
}

/// What a comparison did and found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub status: Status,
    /// Changes that were made.
    pub operations: usize,
    /// Nodes that are left out.
    pub problems: usize,
}

impl Reconciler {
    /// Nothing is touched before [`Reconciler::hear`] was told that all Nodes are known.
    pub fn new(netlink: Netlink, node_name: String, settings: Settings, places: Places) -> Self {
        Self {
            netlink,
            node_name,
            settings,
            places,
            nodes: BTreeMap::new(),
            synced: false,
            uplink: None,
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

    /// Whether a change in the kernel concerns us: the device, the uplink, an address, a route of ours.
    pub fn concerns(&self, event: &Event) -> bool {
        let ours = |link: &Link| {
            link.name == VXLAN_LINK || self.uplink.as_ref().is_some_and(|u| u.index == link.index)
        };
        self.synced
            && match event {
                Event::LinkSet(link) | Event::LinkDeleted(link) => ours(link),
                // Pods' addresses are in other namespaces; those of the node are few.
                Event::AddressSet(_) | Event::AddressDeleted(_) => true,
                Event::RouteDeleted(route) => route.encap.is_some(),
                Event::RouteSet(_) | Event::NeighbourSet(_) | Event::NeighbourDeleted(_) => false,
            }
    }

    /// Compares and mends. Before all Nodes are known it does nothing, so that a restart never takes away what it has
    /// not heard of yet.
    pub async fn sync(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.status.node.clone_from(&self.node_name);
        if !self.synced {
            return outcome;
        }
        let mesh = mesh(&self.nodes, &self.node_name);
        outcome.problems = mesh.problems.len();
        let errors = match &mesh.own {
            Some(own) => {
                outcome.status.address = Some(own.address.to_string());
                outcome.status.pod_cidrs = strings(&own.pod_cidrs);
                self.bring_up(own, &mesh, &mut outcome).await
            }
            None => mesh.problems.iter().map(ToString::to_string).collect(),
        };
        outcome.status.in_sync = errors.is_empty();
        outcome.status.errors = errors;
        outcome
    }

    async fn bring_up(&mut self, own: &Member, mesh: &Mesh, outcome: &mut Outcome) -> Vec<String> {
        self.uplink = match uplink(&self.netlink, own.address).await {
            Ok(link) => link,
            Err(error) => return vec![error.to_string()],
        };
        let Some(uplink) = &self.uplink else {
            return vec![format!(
                "address {} of this node is on none of its links",
                own.address
            )];
        };
        let mtu = overlay_mtu(uplink.mtu, own.address);
        outcome.status.uplink = Some(uplink.name.clone());
        outcome.status.mtu = Some(mtu);

        let desired = plan(own, &mesh.peers, &self.settings, uplink.mtu);
        let observed = match observe(&self.netlink, desired.settings.keys()).await {
            Ok(observed) => observed,
            Err(error) => return vec![error.to_string()],
        };
        let operations = diff(&desired, &observed);
        outcome.operations += operations.len();
        let failures = apply(&self.netlink, operations).await;
        outcome.status.peers = peers(mesh, &failures);
        let mut errors: Vec<_> = failures.iter().map(|f| f.error.to_string()).collect();
        errors.extend(self.masquerade(own, outcome).await);
        if !failures.iter().any(Failure::is_vital) {
            errors.extend(self.publish(own, mtu));
        }
        errors
    }

    async fn masquerade(&self, own: &Member, outcome: &mut Outcome) -> Vec<String> {
        let mut errors = Vec::new();
        for cidr in &own.pod_cidrs {
            match egress::sync(&Egress::new(*cidr, &self.settings.cluster_cidrs)).await {
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
}

fn strings(cidrs: &[IpNetwork]) -> Vec<String> {
    cidrs.iter().map(ToString::to_string).collect()
}

fn peers(mesh: &Mesh, failures: &[Failure]) -> Vec<PeerStatus> {
    let state = |peer: &Member| {
        let failure = failures.iter().find(|failure| match &failure.operation {
            Operation::SetRoute(_, tunnel) => tunnel.encap.remote == peer.address,
            Operation::SetNeighbour(gateway, _) => {
                peer.pod_cidrs.iter().any(|cidr| cidr.network() == *gateway)
            }
            _ => failure.is_vital(),
        });
        failure.map_or("connected".to_owned(), |f| f.error.to_string())
    };
    let connected = mesh.peers.iter().map(|peer| PeerStatus {
        name: peer.name.to_string(),
        address: Some(peer.address.to_string()),
        pod_cidrs: strings(&peer.pod_cidrs),
        state: state(peer),
    });
    let left_out = mesh.problems.iter().map(|problem| PeerStatus {
        name: problem.node().to_string(),
        address: None,
        pod_cidrs: Vec::new(),
        state: problem.to_string(),
    });
    connected.chain(left_out).collect()
}
