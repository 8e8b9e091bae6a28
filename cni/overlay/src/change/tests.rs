use proptest::prelude::*;
use seaway_kernel::Link;
use seaway_model::ownership::VXLAN_LINK;

use super::*;
use crate::diff::{Operation, diff};
use crate::observe::Observed;
use crate::plan::Findings;
use crate::testing::{link, member, node, settings, underlay};

/// A Node of a small world, in which addresses and pod CIDRs are often those of another.
fn any_node(number: u8, address: u8, cidr: u8, prefix: u8) -> Node {
    let mut node = node(&member(number));
    node.addresses = vec![[192, 168, 0, address].into()];
    // Without a pod CIDR where there is no such prefix.
    let cidr = format!("10.244.{cidr}.0/{prefix}").parse();
    node.pod_cidrs = cidr.into_iter().collect();
    node
}

/// What changes: a Node comes or is another (`None`: it goes), and what probing found of one.
fn any_step() -> impl Strategy<Value = (u8, Option<Node>, Option<u32>)> {
    let node = (2u8..9).prop_flat_map(|number| {
        let node = (2u8..10, 0u8..16, 20u8..35);
        let node = node.prop_map(move |(a, c, p)| any_node(number, a, c, p));
        (Just(number), proptest::option::weighted(0.8, node))
    });
    (node, proptest::option::of(1300u32..1500)).prop_map(|((n, node), mtu)| (n, node, mtu))
}

fn name(number: u8) -> Arc<str> {
    member(number).name
}

fn seen(desired: &Desired) -> Observed {
    let device: Link = link(7, VXLAN_LINK, 0);
    Observed::image(desired, device)
}

/// Neither has an order of its own.
fn sorted(operations: &[Operation]) -> Vec<String> {
    let mut all: Vec<_> = operations.iter().map(Operation::to_string).collect();
    all.sort();
    all
}

proptest! {
    /// Step by step it comes to what is planned at once, by the same operations.
    #[test]
    fn some_changes_or_everything_anew_is_the_same(
        steps in proptest::collection::vec(proptest::collection::vec(any_step(), 1..4), 1..12),
    ) {
        let (settings, underlay) = (settings(), underlay());
        let mut findings = Findings::default();
        let mut nodes = BTreeMap::new();
        let own = member(1);
        let mut roster = Roster::new(own.clone(), &nodes);
        let manner = Manner { settings: &settings, underlay: &underlay, findings: &findings };
        let mut desired = manner.plan(&roster);
        for step in steps {
            let before = desired.clone();
            let mut changed = BTreeSet::new();
            for (number, node, mtu) in step {
                let name = name(number);
                match node {
                    Some(node) => nodes.insert(name.clone(), node),
                    None => nodes.remove(&name),
                };
                match mtu {
                    Some(mtu) => findings.mtu.insert(name.clone(), mtu),
                    None => findings.mtu.remove(&name),
                };
                changed.insert(name);
            }
            let manner = Manner { settings: &settings, underlay: &underlay, findings: &findings };
            let part = change(&mut roster, &mut desired, &nodes, &changed, manner).unwrap();
            let whole = Roster::new(own.clone(), &nodes);
            let wanted = manner.plan(&whole);
            prop_assert_eq!(
                sorted(&diff(&part.after, &seen(&part.before))),
                sorted(&diff(&wanted, &seen(&before)))
            );
            desired.take_peers(part.after);
            prop_assert_eq!(&desired, &wanted);
            for number in 2..9 {
                prop_assert_eq!(roster.verdict(&name(number)), whole.verdict(&name(number)));
            }
        }
    }
}

#[test]
fn one_of_many_costs_what_it_has() {
    let (settings, underlay, findings) = (settings(), underlay(), Findings::default());
    let manner = Manner {
        settings: &settings,
        underlay: &underlay,
        findings: &findings,
    };
    let mut nodes: BTreeMap<_, _> = (2..200).map(|n| (name(n), node(&member(n)))).collect();
    let mut roster = Roster::new(member(1), &nodes);
    let mut desired = manner.plan(&roster);
    nodes.insert(name(50), any_node(50, 250, 50, 24));
    let changed = BTreeSet::from([name(50)]);
    let part = change(&mut roster, &mut desired, &nodes, &changed, manner).unwrap();
    assert_eq!(part.names, changed);
    // It had a pod CIDR of each family, and has one.
    let sizes = [&part.before, &part.after].map(|part| {
        let Desired {
            routes,
            neighbours,
            known,
            ..
        } = part;
        (routes.len(), neighbours.len(), known.len())
    });
    assert_eq!(sizes, [(2, 2, 1), (1, 1, 1)]);
}

#[test]
fn another_mtu_of_the_device_concerns_everybody() {
    let (settings, findings) = (settings(), Findings::default());
    let mut underlay = underlay();
    underlay.v6 = underlay.v4.clone().map(|mut uplink| {
        uplink.network = "fd00::1/64".parse().unwrap();
        uplink
    });
    let manner = Manner {
        settings: &settings,
        underlay: &underlay,
        findings: &findings,
    };
    let mut own = member(1);
    own.second = Some("fd00::1".parse().unwrap());
    let mut nodes = BTreeMap::from([(name(2), node(&member(2)))]);
    let mut roster = Roster::new(own, &nodes);
    let mut desired = manner.plan(&roster);
    let mut other = node(&member(3));
    other.addresses = vec!["fd00::3".parse().unwrap()];
    nodes.insert(name(3), other);
    let changed = BTreeSet::from([name(3)]);
    assert_eq!(
        change(&mut roster, &mut desired, &nodes, &changed, manner),
        None
    );
}
