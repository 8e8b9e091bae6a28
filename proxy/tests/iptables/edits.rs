//! Changes of single rules: generated, on the iptables in memory and on the real programs; what they leave alone; and
//! what becomes of them when somebody else has edited the same chain.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use seaway_model::{Change, Delta, Family};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::iptables::fake::Fake;
use seaway_proxy::iptables::parse;
use seaway_proxy::iptables::plan::Chains;
use seaway_proxy::iptables::rule::{ChainId, ChainName, Rule, Rules};
use seaway_proxy::iptables::transaction::Transaction;

use crate::machine::{Machine, in_each_variant, run, service_with, web};
use crate::states::{NAMES, Next, State, chains, follow, next, state};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn transaction(before: &Chains, after: &Chains, family: Family) -> Transaction {
    let mut delta = Delta::new();
    delta.replace_observed(before.clone());
    delta.replace_desired(after.clone());
    Transaction::new(family, &delta)
}

/// The length of the longest common subsequence: how many rules can stay.
fn common(before: &[Rule], after: &[Rule]) -> usize {
    let mut best = vec![0; after.len() + 1];
    for old in before {
        let mut diagonal = 0;
        for (index, new) in after.iter().enumerate() {
            let above = best[index + 1];
            best[index + 1] = match old == new {
                true => diagonal + 1,
                false => above.max(best[index]),
            };
            diagonal = above;
        }
    }
    best[after.len()]
}

/// With a comment that says where it was.
fn tagged(chains: &Chains) -> Chains {
    let tag = |(id, rules): (&ChainId, &Rules)| {
        let rules = rules.iter().enumerate().map(|(index, rule)| {
            let rule = rule.clone();
            match id.name.is_ours() {
                true => rule.comment(&format!("was {index}")),
                false => rule,
            }
        });
        (id.clone(), rules.collect())
    };
    chains.iter().map(tag).collect()
}

proptest! {
    /// What is wanted comes out, and where few rules differ, all that can stay are the very ones that were there:
    /// nothing in a step depends on what a rule says.
    #[test]
    fn rules_that_stay_are_not_touched(before in state(), next in next()) {
        let after = follow(before.clone(), &next);
        for family in FAMILIES {
            let (before, after) = (chains(&before, family), chains(&after, family));
            let transaction = transaction(&before, &after, family);
            let mut fake = Fake::holding(family, &before);
            fake.restore(transaction.as_str()).unwrap();
            prop_assert_eq!(&fake.chains(), &after, "{}", transaction);

            let mut fake = Fake::holding(family, &tagged(&before));
            fake.restore(transaction.as_str()).unwrap();
            for (id, rules) in after.iter().filter(|(id, _)| id.name.is_ours()) {
                let old = before.get(id).map_or(&[][..], |rules| rules);
                let was = |rule: &&Rule| rule.comment.as_deref().is_some_and(|c| c.starts_with("was "));
                let stayed = fake.rules(id).unwrap().iter().filter(was).count();
                let can_stay = common(old, rules);
                // As many as there are to be taken away and put in.
                if old.len() + rules.len() - 2 * can_stay <= can_stay {
                    prop_assert_eq!(stayed, can_stay, "{:?}\n{}", id, transaction);
                }
            }
        }
    }
}

/// Seeds are fixed, so that a failure can be looked at.
fn changes(count: usize) -> Vec<Next> {
    let mut runner = TestRunner::deterministic();
    let mut one = || next().new_tree(&mut runner).unwrap().current();
    (0..count).map(|_| one()).collect()
}

#[test]
fn the_programs_end_where_they_should() {
    let changes = changes(120);
    in_each_variant(|machine| {
        let changes = changes.clone();
        async move {
            for family in FAMILIES {
                let mut state: State = vec![None; NAMES.len()];
                let mut before = Chains::new();
                for change in &changes {
                    state = follow(state, change);
                    let after = chains(&state, family);
                    let transaction = transaction(&before, &after, family);
                    machine.restore(family, transaction.as_str());
                    let saved = run(&format!("{}-save", machine.name(family)), &[], "");
                    let found = parse::saved(&saved, family);
                    assert_eq!(found, after, "{:?}\n{transaction}", machine.variant);
                    before = after;
                }
            }
        }
    });
}

/// How many packets each rule of a chain has seen, by its port.
fn counters(machine: Machine, family: Family) -> BTreeMap<u16, u64> {
    let saved = run(&format!("{}-save", machine.name(family)), &["-c"], "");
    let counter = |line: &str| {
        let (counters, rule) = line.strip_prefix('[')?.split_once("] -A SEAWAY-A ")?;
        let port = rule.split_once("--dport ")?.1.split(' ').next()?;
        Some((
            port.parse().ok()?,
            counters.split(':').next()?.parse().ok()?,
        ))
    };
    saved.lines().filter_map(counter).collect()
}

#[test]
fn neighbours_keep_their_counters() {
    in_each_variant(|machine| async move {
        run("ip", &["link", "set", "lo", "up"], "");
        for family in FAMILIES {
            let loopback: IpAddr = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let nobody = SocketAddr::new(loopback, 9);
            let with = |ports: &[u16]| -> Chains {
                let rule = |port| {
                    format!("-p udp -m udp --dport {port} -j DNAT --to-destination {nobody}")
                };
                let rules = ports.iter().map(|port| parse::rule(&rule(port), family));
                let chain = ChainId::nat(&ChainName::new("SEAWAY-A"));
                let output = ChainId::nat(&ChainName::new("OUTPUT"));
                let jump = [parse::rule("-j SEAWAY-A", family)];
                Chains::from([(chain, rules.collect()), (output, Rules::from(jump))])
            };
            let mut from = 20_000..;
            let mut send = |port: u16| {
                // From a port of its own each: nat sees the first packet of a flow.
                let socket = UdpSocket::bind((loopback, from.next().unwrap())).unwrap();
                socket.send_to(b"x", (loopback, port)).unwrap();
            };
            let before: Vec<u16> = (8001..=8012).collect();
            machine.restore(
                family,
                transaction(&Chains::new(), &with(&before), family).as_str(),
            );
            for port in &before {
                (8000..*port).for_each(|_| send(*port));
            }
            let counted = before.iter().map(|port| (*port, u64::from(port - 8000)));
            assert_eq!(counters(machine, family), counted.collect());

            // One in the place of another, one gone, one more in the middle and one at the end.
            let after = [
                8001, 8002, 9003, 8004, 8005, 8007, 9008, 8008, 8009, 8010, 8011, 8012, 9012,
            ];
            let edit = transaction(&with(&before), &with(&after), family);
            assert_eq!((edit.operations, edit.deletions), (4, 1), "{edit}");
            machine.restore(family, edit.as_str());
            let kept =
                after.map(|port| (port, u64::from(port % 9000 % 8000) * u64::from(port < 9000)));
            assert_eq!(counters(machine, family), BTreeMap::from(kept), "{edit}");
        }
    });
}

/// The chain of nat in which this backend of Service `web` is.
fn chain_with(machine: Machine, backend: &str) -> String {
    let saved = machine.saved(Family::V4);
    let line = saved.iter().find(|line| line.contains(backend)).unwrap();
    line.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_step_that_hits_a_strangers_rule_is_repaired() {
    in_each_variant(|machine| async move {
        let (before, after) = (service_with(&[2, 3]), service_with(&[2, 4]));
        let mut dataplane = machine.with(&after).await;
        let wanted = machine.saved(Family::V4);
        // Theirs moves ours by one; and ours is gone altogether, for which the program says no.
        for (edit, refused) in [("-I {} -j RETURN", false), ("-F {}", true)] {
            let plan = dataplane.plan(&before, &web());
            dataplane.apply(plan).await.unwrap();
            let chain = chain_with(machine, "10.244.1.3:8080");
            let plan = dataplane.plan(&after, &web());
            assert!(plan.to_string().contains(&format!("-R {chain} ")), "{plan}");
            machine.iptables(&format!("-t nat {}", edit.replace("{}", &chain)));
            let result = dataplane.apply(plan).await;
            assert_eq!(result.is_err(), refused, "{result:?}");
            assert_ne!(machine.saved(Family::V4), wanted);
            if !refused {
                // Nobody says a word: it has to be noticed.
                let noticed = tokio::time::timeout(Duration::from_secs(10), dataplane.watch());
                let reason = noticed.await.unwrap().unwrap();
                assert!(reason.contains(&chain), "{reason}");
            }
            dataplane.observe().await.unwrap();
            let plan = dataplane.plan(&after, &Change::Full);
            dataplane.apply(plan).await.unwrap();
            assert_eq!(machine.saved(Family::V4), wanted);
        }
    });
}
