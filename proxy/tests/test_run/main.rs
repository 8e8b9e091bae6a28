//! The loaded classifiers under `BPF_PROG_TEST_RUN`, packet in, packet out, against the specification: the tables of
//! [`seaway_model::testing::scenes`], and clusters that nobody has thought of. Of each packet that is delivered the whole
//! conversation is played, there and back, with complaints and fragments.
//!
//! Not here: processes of the node, whose packets no classifier sees (`tests/scenes` has them, over sockets). SCTP is left to
//! others where it is served, and refused where it is not.

#![allow(clippy::unwrap_used)]

mod frame;
mod judge;
mod node;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use seaway_model::testing::classes::{self, Class, Way, is_for_classifiers};
use seaway_model::testing::scenes::{Scene, names, scenes};
use seaway_model::testing::{NODE, inputs, node_addresses, node_context, settings};
use seaway_model::{
    Desired, DetectLocal, EndpointSlice, Family, FrontendAddr, InputEvent, Inputs, NodeContext,
    Origin, Outcomes, Packet, Protocol, derive_all, outcomes,
};

use judge::Judge;
use node::{Entry, Node};

#[test]
fn scenes_of_both_families() {
    let scenes = scenes();
    // Loading programs takes longer than all packets together: as few nodes as there are settings.
    let settings = |scene: &Scene| NodeContext {
        addresses: Vec::new(),
        ..scene.node.clone()
    };
    let mut contexts: Vec<NodeContext> = Vec::new();
    for context in scenes.iter().map(settings) {
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    }
    let addresses: BTreeSet<IpAddr> = scenes
        .iter()
        .flat_map(|scene| scene.node.addresses.iter().copied())
        .collect();
    let mut node = Node::new(&NodeContext {
        addresses: addresses.into_iter().collect(),
        ..NodeContext::default()
    });
    let (mut played, mut failures) = (0, Vec::new());
    let mut total = Total::default();
    for context in contexts {
        node.become_as(&context);
        for scene in scenes.iter().filter(|scene| settings(scene) == context) {
            let (desired, _) = derive_all(&scene.inputs, &scene.settings);
            node.forget();
            let mut judge = Judge::new(&mut node, &desired);
            for case in &scene.cases {
                for entry in entries(&case.packet) {
                    played += 1;
                    if let Err(error) = judge.send(&case.packet, entry) {
                        let (name, family) = (&scene.name, scene.family);
                        let line = case.line;
                        failures.push(format!("{name}, {family:?}: {line} by {entry:?}: {error}"));
                    }
                }
            }
            total.add(judge);
        }
    }
    println!("{played} rows, {total}");
    assert!(
        failures.is_empty(),
        "{} of {played}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(played > 400, "only {played} rows");
    let expected: BTreeSet<Class> = scenes
        .iter()
        .flat_map(|scene| classes::of_scene(scene, is_for_classifiers))
        .collect();
    assert_eq!(total.classes, expected, "what docs/packets.md says");
}

/// The links by which a packet may come.
fn entries(packet: &Packet) -> Vec<Entry> {
    let ways = Way::of(packet).iter();
    ways.filter(|way| is_for_classifiers(packet, **way))
        .filter_map(|way| Entry::of(*way))
        .collect()
}

/// What was played in all.
#[derive(Default)]
struct Total {
    classes: BTreeSet<Class>,
    runs: usize,
}

impl Total {
    fn add(&mut self, judge: Judge<'_>) {
        self.classes.extend(judge.classes);
        self.runs += judge.runs;
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (classes, runs) = (self.classes.len(), self.runs);
        write!(f, "{classes} classes of packets, {runs} runs")
    }
}

/// Nodes, each with so many clusters.
const NODES: u32 = 4;
const CLUSTERS: u32 = 24;
const HISTORIES: u32 = 24;

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

#[test]
fn generated_clusters() {
    let total = RefCell::new(Total::default());
    let mut node = Node::new(&NodeContext {
        addresses: node_addresses(),
        ..NodeContext::default()
    });
    let mut chance = TestRunner::new(Config::default());
    for _ in 0..NODES {
        let context = node_context().new_tree(&mut chance).unwrap().current();
        node.become_as(&context);
        let node = RefCell::new(&mut node);
        let cluster = |inputs| {
            let mut node = node.borrow_mut();
            let (desired, _) = derive_all(&with_host_network(inputs, &node.context), &settings());
            let packets: Vec<(Packet, Entry)> = knocks(&desired, &node.context)
                .into_iter()
                .flat_map(|packet| entries(&packet).into_iter().map(move |by| (packet, by)))
                .collect();
            node.forget();
            let mut judge = Judge::new(&mut node, &desired);
            for (packet, entry) in &packets {
                let sent = judge.send(packet, *entry);
                sent.map_err(|error| {
                    TestCaseError::fail(format!("{packet:?} by {entry:?}: {error}"))
                })?;
            }
            judge.crowd(&packets).map_err(TestCaseError::fail)?;
            total.borrow_mut().add(judge);
            Ok(())
        };
        let generated = TestRunner::new(config(CLUSTERS)).run(&inputs(), cluster);
        generated.unwrap_or_else(|error| panic!("{context:?}\n{error}"));
    }
    println!("generated: {}", total.borrow());
}

/// Some pods use the network of their node.
fn with_host_network(mut inputs: Inputs, node: &NodeContext) -> Inputs {
    let slices: Vec<EndpointSlice> = inputs.slices.values().flatten().cloned().collect();
    for mut slice in slices {
        let own = node
            .addresses
            .iter()
            .find(|ip| Family::of(**ip) == slice.family);
        let last = slice.endpoints.last_mut();
        let Some((own, endpoint)) = own.zip(last) else {
            continue;
        };
        endpoint.address = *own;
        endpoint.node = Some(NODE.into());
        inputs.apply(InputEvent::Slice(slice.key.clone(), Some(slice)));
    }
    inputs
}

/// Somebody of each kind knocks at every frontend, and at a port beside it.
fn knocks(desired: &Desired, node: &NodeContext) -> Vec<Packet> {
    let rules = desired.services.values().flat_map(|service| &service.ports);
    let mut packets = Vec::new();
    for rule in rules {
        let of_family = |ip: &&IpAddr| Family::of(**ip) == rule.family;
        for frontend in &rule.frontends {
            let addresses: Vec<IpAddr> = match frontend.addr {
                FrontendAddr::Ip(ip) => vec![ip],
                FrontendAddr::AnyNodeAddress(_) => {
                    node.addresses.iter().filter(of_family).copied().collect()
                }
            };
            let name = |name| names::address(name, rule.family);
            let mut sources = vec![
                (name("pod"), Origin::LocalPod),
                (name("farpod"), Origin::External),
                (name("othernode"), Origin::External),
                (name("friend"), Origin::External),
                (name("stranger"), Origin::External),
            ];
            // The classifiers tell the node by its addresses, wherever a packet comes from.
            let own = node.addresses.iter().find(of_family);
            sources.extend(own.map(|own| (*own, Origin::External)));
            let mut endpoints = rule.cluster.iter().chain(&rule.local);
            let local = endpoints
                .find(|backend| backend.local)
                .map(|backend| backend.addr.ip());
            sources.extend(local.map(|ip| (ip, Origin::LocalPod)));
            for address in addresses {
                for (source, origin) in &sources {
                    for port in [frontend.port, frontend.port ^ 1] {
                        packets.push(Packet {
                            source: *source,
                            destination: SocketAddr::new(address, port),
                            protocol: frontend.protocol,
                            origin: *origin,
                        });
                    }
                }
            }
        }
    }
    packets
}

/// Datagrams of one socket while the cluster changes: each meets what the specification says of the cluster as it is now,
/// but an endpoint that is still allowed is kept, and so is the source that the endpoint knows.
#[test]
fn flows_of_datagrams_follow_the_cluster() {
    let context = NodeContext {
        addresses: node_addresses(),
        detect_local: DetectLocal::ClusterCidr(names::cluster_cidrs()),
        ..NodeContext::default()
    };
    let node = RefCell::new(Node::new(&context));
    let follow = |history: Vec<_>| {
        let mut node = node.borrow_mut();
        let clusters: Vec<Desired> = history
            .iter()
            .map(|inputs| derive_all(inputs, &settings()).0)
            .collect();
        let mut packets: Vec<Packet> = clusters
            .iter()
            .flat_map(|desired| knocks(desired, &node.context))
            .filter(|packet| packet.protocol == Protocol::Udp)
            .collect();
        packets.truncate(200);
        node.forget();
        for desired in &clusters {
            follow_one(&mut node, desired, &packets).map_err(TestCaseError::fail)?;
        }
        Ok(())
    };
    let histories = proptest::collection::vec(inputs(), 2..5);
    TestRunner::new(config(HISTORIES))
        .run(&histories, follow)
        .unwrap();
}

fn follow_one(node: &mut Node, desired: &Desired, packets: &[Packet]) -> Result<(), String> {
    let context = node.context.clone();
    let mut judge = Judge::new(node, desired);
    for (packet, port) in packets.iter().zip(40_000..) {
        let allowed: Outcomes = outcomes(desired, packet, &context);
        for entry in entries(packet) {
            let sent = judge.send_again(packet, entry, port, &allowed);
            sent.map_err(|error| format!("{packet:?} by {entry:?}: {error}"))?;
        }
    }
    Ok(())
}
