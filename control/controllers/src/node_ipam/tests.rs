use proptest::prelude::*;

use super::*;
use crate::fixture::{World, node};
use crate::plan::Op;

fn ipam(cidrs: &[&str], mask_v4: u8) -> NodeIpam {
    NodeIpam::new(&ControllersConfig {
        cluster_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
        node_mask_v4: mask_v4,
        ..ControllersConfig::default()
    })
}

fn assigned(world: &World) -> Vec<String> {
    let nodes = world.state.all::<Node>();
    nodes
        .flat_map(|n| pod_cidrs(n))
        .map(|cidr| cidr.to_string())
        .collect()
}

#[test]
fn blocks_are_handed_out_from_the_bottom_and_reused() {
    let mut world = World::default();
    let mut ipam = ipam(&["10.244.0.0/16"], 24);
    for name in ["a", "b", "c"] {
        world.put(Kind::Node, node(name));
    }
    world.settle(&mut ipam, Kind::Node);
    assert_eq!(
        assigned(&world),
        ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]
    );
    world.remove(&ObjRef::new(Kind::Node, "", "b"));
    world.put(Kind::Node, node("d"));
    world.settle(&mut ipam, Kind::Node);
    assert_eq!(
        assigned(&world),
        ["10.244.0.0/24", "10.244.2.0/24", "10.244.1.0/24"]
    );
}

#[test]
fn both_families() {
    let mut world = World::default();
    world.put(Kind::Node, node("a"));
    world.settle(
        &mut ipam(&["10.244.0.0/16", "fd00:10::/48"], 24),
        Kind::Node,
    );
    assert_eq!(assigned(&world), ["10.244.0.0/24", "fd00:10::/64"]);
}

#[test]
fn blocks_taken_in_other_sizes_are_respected() {
    let mut world = World::default();
    let mut big = node("big");
    big["spec"] = json!({"podCIDR": "10.0.0.0/22", "podCIDRs": ["10.0.0.0/22"]});
    let mut small = node("small");
    small["spec"] = json!({"podCIDR": "10.0.4.128/25"});
    world.put(Kind::Node, big);
    world.put(Kind::Node, small);
    let new = world.put(Kind::Node, node("new"));
    world.step(&mut ipam(&["10.0.0.0/16"], 24), &new);
    let new = world.state.get::<Node>(&new.key).unwrap();
    assert_eq!(
        new.spec.as_ref().unwrap().pod_cidr.as_deref(),
        Some("10.0.5.0/24")
    );
}

#[test]
fn exhaustion_and_overlap_are_told() {
    let mut world = World::default();
    let mut ipam = ipam(&["10.0.0.0/24"], 24);
    world.put(Kind::Node, node("a"));
    world.settle(&mut ipam, Kind::Node);
    let second = world.put(Kind::Node, node("b"));
    let plan = world.plan(&mut ipam, &second);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.events[0].reason, "CIDRNotAvailable");
    assert!(plan.events[0].message.contains("larger --cluster-cidr"));
    world.patch(&second, &json!({"spec": {"podCIDRs": ["10.0.0.128/25"]}}));
    let plan = world.plan(&mut ipam, &second);
    assert_eq!(plan.events[0].reason, "CIDROverlap");
}

#[test]
fn a_node_that_goes_frees_those_that_wait() {
    let mut world = World::default();
    let mut ipam = ipam(&["10.0.0.0/24"], 24);
    let first = world.put(Kind::Node, node("a"));
    world.settle(&mut ipam, Kind::Node);
    let second = world.put(Kind::Node, node("b"));
    let old = world.state.object(&first).cloned();
    world.remove(&first);
    let change = Change { old, new: None };
    assert_eq!(ipam.touched(&change, &world.state), [second]);
}

proptest! {
    #[test]
    fn no_two_nodes_ever_share_an_address(actions in prop::collection::vec((any::<bool>(), 0_u8..20), 1..60)) {
        let mut world = World::default();
        let mut ipam = ipam(&["10.0.0.0/20", "fd00::/60"], 24);
        for (add, number) in actions {
            let at = ObjRef::new(Kind::Node, "", &format!("n{number}"));
            if add && world.state.object(&at).is_none() {
                world.put(Kind::Node, node(&at.key.name));
            } else if !add {
                world.remove(&at);
            }
            let keys: Vec<ObjRef> = world.state.objects().map(Object::reference).collect();
            for key in keys {
                for step in world.step(&mut ipam, &key).steps {
                    prop_assert!(matches!(step.op, Op::Patch { .. }), "a patch only");
                }
            }
            let all: Vec<IpNetwork> = world.state.all::<Node>().flat_map(|n| pod_cidrs(n)).collect();
            for (i, a) in all.iter().enumerate() {
                prop_assert!(all[i + 1..].iter().all(|b| !overlaps(*a, *b)), "{all:?}");
            }
            // Sixteen blocks of each family: as many nodes have some as there can be.
            prop_assert_eq!(all.len() / 2, world.count::<Node>().min(16));
        }
    }
}
