use proptest::prelude::*;

use super::*;
use crate::mesh::tests::node;

/// The rule, said once more and without any index: one after the other, and whoever claims a part of what somebody before has
/// is out.
fn greedy(own: &Member, nodes: &BTreeMap<Arc<str>, Node>) -> BTreeMap<Arc<str>, bool> {
    let mut there = vec![own.clone()];
    let mut verdicts = BTreeMap::new();
    for (name, node) in nodes {
        let candidate = member(node).ok();
        let candidate = candidate.filter(|candidate| {
            own.ends(candidate).is_some()
                && there.iter().all(|other| {
                    let apart = |ip| other.addresses().all(|theirs| theirs != ip);
                    candidate.addresses().all(apart)
                        && candidate
                            .pod_cidrs
                            .iter()
                            .all(|a| other.pod_cidrs.iter().all(|b| !overlap(*a, *b)))
                        && !covers(candidate, other)
                        && !covers(other, candidate)
                })
        });
        verdicts.insert(name.clone(), candidate.is_some());
        there.extend(candidate);
    }
    verdicts
}

fn covers(a: &Member, b: &Member) -> bool {
    b.addresses()
        .any(|ip| a.pod_cidrs.iter().any(|cidr| cidr.contains(ip)))
}

/// Few addresses and pod CIDRs for many Nodes.
fn any_node() -> impl Strategy<Value = (u8, Option<Node>)> {
    let lists = (
        proptest::collection::vec(0u8..10, 0..3),
        proptest::collection::vec((0u8..16, 0u8..6), 0..3),
        any::<bool>(),
        // Addresses may be where those of pods are.
        proptest::bool::weighted(0.3),
    );
    (1u8..9, proptest::option::weighted(0.85, lists)).prop_map(|(number, lists)| {
        let node = lists.map(|(addresses, cidrs, six, inside)| {
            let addresses = addresses.iter().enumerate().map(|(place, address)| {
                match ((place == 0) == six, inside) {
                    (true, false) => format!("fd00::{address}"),
                    (true, true) => format!("fd01:0:0:{address}::7"),
                    (false, false) => format!("192.168.0.{address}"),
                    (false, true) => format!("10.0.{}.7", address * 16),
                }
            });
            let cidrs = cidrs.iter().map(|(cidr, length)| {
                if six {
                    format!("fd01:0:0:{cidr}::/{}", 61 + length)
                } else {
                    format!("10.0.{}.0/{}", cidr * 16, 18 + length)
                }
            });
            let list = |parts: Vec<String>| parts.join(" ");
            node(
                &format!("n{number}"),
                &list(addresses.collect()),
                &list(cidrs.collect()),
            )
        });
        (number, node)
    })
}

proptest! {
    /// Whatever comes, goes and changes: the verdicts are those that a roster made anew would give and the rule demands, and what
    /// is answered is exactly what is different.
    #[test]
    fn node_by_node_or_all_at_once_is_the_same(
        steps in proptest::collection::vec(any_node(), 1..40),
    ) {
        let own = member(&node("n5", "192.168.0.5 fd00::5", "10.0.80.0/20 fd01:0:0:5::/64")).unwrap();
        let mut nodes = BTreeMap::new();
        let mut roster = Roster::new(own.clone(), &nodes);
        for (number, node) in steps {
            let name: Arc<str> = format!("n{number}").into();
            if name == own.name {
                continue;
            }
            match node {
                Some(node) => nodes.insert(name.clone(), node),
                None => nodes.remove(&name),
            };
            let before = roster.verdicts.clone();
            let told = roster.change(&name, nodes.get(&name));
            let whole = Roster::new(own.clone(), &nodes);
            prop_assert_eq!(&roster.verdicts, &whole.verdicts);
            prop_assert_eq!(&roster.families, &whole.families);
            prop_assert_eq!(roster.left_out(), roster.problems().count());
            let there: BTreeMap<_, _> = roster
                .verdicts
                .iter()
                .map(|(name, verdict)| (name.clone(), verdict.is_ok()))
                .collect();
            prop_assert_eq!(there, greedy(&own, &nodes));
            let mut undone = roster.verdicts.clone();
            for (name, verdict) in told {
                prop_assert_ne!(roster.verdicts.get(&name), verdict.as_ref());
                match verdict {
                    Some(verdict) => undone.insert(name, verdict),
                    None => undone.remove(&name),
                };
            }
            prop_assert_eq!(undone, before);
        }
    }
}

#[test]
fn who_leaves_makes_room_for_those_behind() {
    let own = member(&node("n1", "192.168.0.1", "10.244.1.0/24")).unwrap();
    let list = [
        ("n2", "192.168.0.2", "10.244.0.0/20"),
        ("n3", "192.168.0.3", "10.244.2.0/24"),
        ("n4", "192.168.0.3", "10.244.4.0/24"),
    ];
    let nodes: BTreeMap<Arc<str>, Node> = list
        .iter()
        .map(|(name, address, cidr)| ((*name).into(), node(name, address, cidr)))
        .collect();
    let mut roster = Roster::new(own, &nodes);
    let there = |roster: &Roster| -> Vec<String> {
        roster.peers().map(|peer| peer.name.to_string()).collect()
    };
    // n2 would cover this node's own, so n3 is let in, whose address n4 has, too.
    assert_eq!(there(&roster), ["n3"]);
    let told = roster.change(&"n3".into(), None);
    assert_eq!(there(&roster), ["n4"]);
    let names: Vec<_> = told.keys().map(|name| &**name).collect();
    assert_eq!(names, ["n3", "n4"]);
    // Each of these is one change that n4 hears of.
    for (node, expected) in [
        (node("n3", "192.168.0.3", "10.244.2.0/24"), "n3"),
        (node("n3", "192.168.0.33", "10.244.4.0/25"), "n3"),
    ] {
        roster.change(&"n3".into(), Some(&node));
        assert_eq!(there(&roster), [expected]);
    }
}
