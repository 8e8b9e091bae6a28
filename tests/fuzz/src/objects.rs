//! Histories of API objects: they come, change and go, in any order, and nobody has checked them.

use arbitrary::{Arbitrary, Unstructured};
use ipnetwork::IpNetwork;
use seaway_cluster::convert::Object;
use seaway_model::{DetectLocal, NodeContext};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api;
use crate::cluster::{self, World};
use crate::maps::Maps;
use crate::rules::Rules;

/// What happens, and on what kind of node.
#[derive(Debug, Arbitrary)]
struct History {
    detect_local: Detection,
    masquerade_all: bool,
    few_node_ports: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Detection {
    Ranges,
    OneRange,
    Bridge,
    Nothing,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Service(api::Service),
    Slice(api::Slice),
    Node(api::Node),
    /// One of those that are there.
    Delete(u8),
    /// What came so far is worked off; otherwise it waits for more.
    Derive,
}

/// Objects are converted and derived; following them ends where starting with the last of them would.
pub(crate) fn check(bytes: &[u8]) {
    let mut world = World::default();
    follow(bytes, &mut world, |_, _| {});
    world.derive();
    world.check();
}

/// The same, and the rules that are made of them do what the specification says, however they came about.
pub(crate) fn check_rules(bytes: &[u8]) {
    let mut world = World::default();
    let mut rules: Option<Rules> = None;
    follow(bytes, &mut world, |world, node| {
        let rules = rules.get_or_insert_with(|| Rules::new(node.clone()));
        let touched = world.derive();
        rules.follow(world.desired(), &touched);
    });
}

/// The same of the maps of eBPF mode, and of what its programs decide by them.
pub(crate) fn check_maps(bytes: &[u8]) {
    let mut world = World::default();
    let mut maps: Option<Maps> = None;
    follow(bytes, &mut world, |world, node| {
        let maps = maps.get_or_insert_with(|| Maps::new(node.clone()));
        let touched = world.derive();
        maps.follow(world.desired(), &touched);
    });
}

/// Lets it all happen; `derived` is called where the history says, and at its end.
fn follow(bytes: &[u8], world: &mut World, mut derived: impl FnMut(&mut World, &NodeContext)) {
    // Missing bytes read as zeros, and end lists: only an absurd length is an error.
    let Ok(history) = History::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return;
    };
    let node = history.node();
    for step in history.steps {
        match step {
            Step::Service(service) => world.set(Object::Service(read(&service))),
            Step::Slice(slice) => world.set(Object::Slice(read(&slice))),
            Step::Node(node) => world.set(Object::Node(read(&node))),
            Step::Delete(index) => world.delete(usize::from(index)),
            Step::Derive => derived(world, &node),
        }
    }
    derived(world, &node);
}

/// The way from an API server to us.
fn read<T: DeserializeOwned>(object: &impl Serialize) -> T {
    let json = serde_json::to_value(object).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}"))
}

impl History {
    fn node(&self) -> NodeContext {
        let networks = |texts: &[&str]| -> Vec<IpNetwork> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        let both = networks(&["10.244.0.0/16", "fd00:10:244::/56"]);
        NodeContext {
            addresses: cluster::node_addresses(),
            loopback_node_ports: false,
            detect_local: match self.detect_local {
                Detection::Ranges => DetectLocal::ClusterCidr(both),
                Detection::OneRange => DetectLocal::NodeCidr(networks(&["10.244.1.0/24"])),
                Detection::Bridge => DetectLocal::BridgeInterface("cni0".to_owned()),
                Detection::Nothing => DetectLocal::None,
            },
            masquerade_all: self.masquerade_all,
            node_port_addresses: self
                .few_node_ports
                .then(|| networks(&["192.168.100.0/24", "fd00:192::/64"])),
        }
    }
}
