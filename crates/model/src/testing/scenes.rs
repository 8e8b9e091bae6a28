//! The specification by example: small clusters, packets, and what must become of each, for every feature and in both
//! families. Written by hand, so that the oracle is held against something that it did not say itself; data planes run
//! the same tables.
//!
//! A line of a table reads `source -> destination:port/protocol = outcomes`; the names stand for an address in
//! either family, see [`names`].

use std::collections::BTreeSet;

use super::NODE;
use super::plain::{self, port, service};
use crate::inputs::{
    DirectAnswers, Endpoint, EndpointSlice, Family, InputEvent, Inputs, Node, Protocol, Service,
    TrafficPolicy,
};
use crate::oracle::{NodeContext, Outcomes, Packet};
use crate::settings::{DetectLocal, NodeSettings};

mod balancers;
mod cluster_ips;
mod endpoints;
mod exposure;
mod masquerade;
pub mod names;
mod policies;
mod refusals;
mod topology;

/// A cluster as one node sees it, with packets.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Feature and variation.
    pub name: String,
    pub family: Family,
    pub inputs: Inputs,
    pub settings: NodeSettings,
    pub node: NodeContext,
    pub cases: Vec<Case>,
}

/// One packet and what may become of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// As written in the table, whichever of TCP and UDP the packet is.
    pub line: &'static str,
    pub packet: Packet,
    pub expected: Outcomes,
}

impl Case {
    fn swapped(&self) -> Self {
        let protocol = swapped(self.packet.protocol);
        Self {
            packet: Packet {
                protocol,
                ..self.packet
            },
            ..self.clone()
        }
    }
}

/// UDP for TCP, and TCP for UDP.
fn swapped(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Tcp => Protocol::Udp,
        Protocol::Udp => Protocol::Tcp,
        Protocol::Sctp => Protocol::Sctp,
    }
}

/// Every scene in both families, and once more with TCP and UDP in each other's place: nothing that a Service says depends on
/// which of the two it is.
pub fn scenes() -> Vec<Scene> {
    let features: [fn(&mut Tables); 8] = [
        cluster_ips::tables,
        policies::tables,
        exposure::tables,
        balancers::tables,
        masquerade::tables,
        topology::tables,
        endpoints::tables,
        refusals::tables,
    ];
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        let mut tables = Tables {
            family,
            scenes: Vec::new(),
        };
        for feature in features {
            feature(&mut tables);
        }
        all.append(&mut tables.scenes);
    }
    all
}

/// The scenes of one family so far.
struct Tables {
    family: Family,
    scenes: Vec<Scene>,
}

impl Tables {
    /// Adds a scene: the plain one, changed by `change`.
    fn scene(&mut self, name: &'static str, change: impl FnOnce(&mut Setup), table: &'static str) {
        let mut setup = Setup::plain(self.family);
        change(&mut setup);
        let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let cases: Vec<Case> = lines
            .map(|line| names::case(line, self.family).unwrap_or_else(|| panic!("{name}: {line}")))
            .collect();
        let swapped = cases.iter().map(Case::swapped).collect();
        let name = name.to_owned();
        self.scenes.push(
            setup
                .swapped()
                .scene(format!("{name}, TCP and UDP swapped"), swapped),
        );
        self.scenes.push(setup.scene(name, cases));
    }
}

/// What a scene is made from: a Service `web` at port 80 of its cluster IP, one endpoint here and one on
/// another node, both at port 8080.
#[derive(Clone)]
struct Setup {
    family: Family,
    web: Service,
    others: Vec<Service>,
    slices: Vec<EndpointSlice>,
    own: Node,
    settings: NodeSettings,
    node: NodeContext,
}

impl Setup {
    fn plain(family: Family) -> Self {
        let ip = |name| names::address(name, family);
        let mut setup = Self {
            family,
            web: service(
                "web",
                vec![ip("cluster")],
                vec![port("http", Protocol::Tcp, 80)],
            ),
            others: Vec::new(),
            slices: Vec::new(),
            own: Node {
                name: NODE.into(),
                addresses: vec![ip("node")],
                pod_cidrs: Vec::new(),
                zone: None,
                draining: false,
                direct_answers: DirectAnswers::No,
            },
            settings: NodeSettings {
                external_ip_cidrs: names::allowed_external_ips(),
                ..NodeSettings::new(NODE)
            },
            node: NodeContext {
                addresses: vec![ip("node"), ip("node2")],
                detect_local: DetectLocal::ClusterCidr(names::cluster_cidrs()),
                ..NodeContext::default()
            },
        };
        setup.endpoints(&["here rs", "there rs"]);
        setup
    }

    /// The address of that name.
    fn ip(&self, name: &str) -> std::net::IpAddr {
        names::address(name, self.family)
    }

    /// Opens `web` to the outside: a node port, a load balancer, an external IP.
    fn expose(&mut self) {
        self.web.ports[0].node_port = Some(30_080);
        self.web.load_balancer_ips = vec![self.ip("balancer")];
        self.web.external_ips = vec![self.ip("external")];
    }

    fn policies(&mut self, internal: TrafficPolicy, external: TrafficPolicy) {
        self.web.internal_policy = internal;
        self.web.external_policy = external;
    }

    /// Replaces all slices by one with these endpoints: name, then conditions as letters (ready, serving,
    /// terminating), then hints as `zone=a` or `node=n1`.
    fn endpoints(&mut self, endpoints: &[&str]) {
        self.slices.clear();
        self.slice("web-1", 8080, endpoints);
    }

    /// One more slice of `web`.
    fn slice(&mut self, name: &str, target: u16, endpoints: &[&str]) {
        let endpoints = endpoints.iter().map(|e| self.endpoint(e)).collect();
        let target = plain::target("http", Protocol::Tcp, target);
        let slice = plain::slice(name, "web", self.family, target, endpoints);
        self.slices.push(slice);
    }

    fn endpoint(&self, text: &str) -> Endpoint {
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        let conditions = words.next().unwrap_or_default();
        let hints: BTreeSet<&str> = words.collect();
        let hinted = |kind| {
            let of_kind = hints.iter().filter_map(move |hint| hint.strip_prefix(kind));
            of_kind.map(Into::into).collect()
        };
        let node = if name.starts_with("here") { NODE } else { "n2" };
        Endpoint {
            zone_hints: hinted("zone="),
            node_hints: hinted("node="),
            ..plain::endpoint(self.ip(name), conditions, Some(node))
        }
    }

    fn swapped(&self) -> Self {
        let mut setup = self.clone();
        for service in setup.others.iter_mut().chain([&mut setup.web]) {
            for port in &mut service.ports {
                port.protocol = swapped(port.protocol);
            }
        }
        for port in setup.slices.iter_mut().flat_map(|slice| &mut slice.ports) {
            port.protocol = swapped(port.protocol);
        }
        setup
    }

    fn scene(self, name: String, cases: Vec<Case>) -> Scene {
        let mut inputs = Inputs::default();
        for service in [self.web].into_iter().chain(self.others) {
            inputs.apply(InputEvent::Service(service.key.clone(), Some(service)));
        }
        for slice in self.slices {
            inputs.apply(InputEvent::Slice(slice.key.clone(), Some(slice)));
        }
        inputs.apply(InputEvent::Node(self.own.name.clone(), Some(self.own)));
        Scene {
            name,
            family: self.family,
            inputs,
            settings: self.settings,
            node: self.node,
            cases,
        }
    }
}
