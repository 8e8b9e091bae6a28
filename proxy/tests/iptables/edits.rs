//! Changes of single rules: generated, on the iptables in memory and on the real programs; what they leave alone; and
//! what becomes of them when somebody else has edited the same chain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use seaway_model::{Change, Delta, Family};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::iptables::fake::Fake;
use seaway_proxy::iptables::parse;
use seaway_proxy::iptables::plan::Chains;
use seaway_proxy::iptables::rule::{ChainId, ChainName, Rule, Rules, Table};
use seaway_proxy::iptables::transaction::Transaction;

use crate::machine::{Machine, in_each_variant, run, service_with, web};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Chains of ours; each may jump to those behind it.
const NAMES: [&str; 5] = ["SEAWAY-A", "SEAWAY-B", "SEAWAY-C", "SEAWAY-D", "SEAWAY-E"];

/// Rules by number, for each of [`NAMES`]; `None`: there is no such chain.
type State = Vec<Option<Vec<usize>>>;

/// How many rules there are to choose from: few, so that some stand in a chain more than once.
const KINDS: usize = 16;

#[derive(Debug, Clone)]
enum Edit {
    Insert(usize),
    Replace(usize),
    Delete,
    /// The chain comes or goes.
    Toggle,
}

/// What a state becomes.
#[derive(Debug, Clone)]
enum Next {
    Other(State),
    /// Edits by chain and place.
    Edited(Vec<(usize, usize, Edit)>),
}

fn state() -> impl Strategy<Value = State> {
    let chain = prop::option::weighted(0.8, vec(0..KINDS, 0..14));
    vec(chain, NAMES.len())
}

fn next() -> impl Strategy<Value = Next> {
    let edit = prop_oneof![
        4 => (0..KINDS).prop_map(Edit::Insert),
        4 => (0..KINDS).prop_map(Edit::Replace),
        4 => Just(Edit::Delete),
        1 => Just(Edit::Toggle),
    ];
    prop_oneof![
        1 => state().prop_map(Next::Other),
        4 => vec((0..NAMES.len(), 0..20_usize, edit), 1..7).prop_map(Next::Edited),
    ]
}

fn follow(mut state: State, next: &Next) -> State {
    let edits = match next {
        Next::Other(other) => return other.clone(),
        Next::Edited(edits) => edits,
    };
    for (chain, place, edit) in edits {
        let chain = &mut state[*chain];
        let Some(rules) = chain else {
            if matches!(edit, Edit::Toggle) {
                *chain = Some(Vec::new());
            }
            continue;
        };
        let behind = place % (rules.len() + 1);
        match edit {
            Edit::Insert(kind) => rules.insert(behind, *kind),
            Edit::Replace(kind) if behind < rules.len() => rules[behind] = *kind,
            Edit::Delete if behind < rules.len() => {
                rules.remove(behind);
            }
            Edit::Toggle => *chain = None,
            Edit::Replace(_) | Edit::Delete => {}
        }
    }
    state
}

/// A rule of a chain in nat or filter: every third is a jump, if there is where to.
fn rule(kind: usize, from: usize, table: Table, state: &State, family: Family) -> Rule {
    let port = 8000 + kind;
    let to = from + 1 + kind % 4;
    if kind.is_multiple_of(3) && state.get(to).is_some_and(Option::is_some) {
        return parse::rule(&format!("-j {}", NAMES[to]), family);
    }
    let (backend, mask) = match family {
        Family::V4 => ("10.0.0.1", "255.255.255.255"),
        Family::V6 => ("[fd00::1]", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    };
    let text = match (kind % 4, table) {
        (0, Table::Nat) => format!(
            "-p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination {backend}:{port}"
        ),
        (1, _) => {
            format!("-p udp -m recent --set --name SEAWAY-{kind} --mask {mask} --rsource -j RETURN")
        }
        (2, _) => {
            format!("-p tcp -m comment --comment \"number {kind}\" -m tcp --dport {port} -j RETURN")
        }
        _ => format!("-j MARK --set-xmark 0x{kind:x}/0xff"),
    };
    parse::rule(&text, family)
}

/// The same in both tables, and jumps from built-in chains.
fn chains(state: &State, family: Family) -> Chains {
    let mut chains = Chains::new();
    for table in Table::ALL {
        let mut add = |name: &str, rules: Rules| {
            let name = ChainName::new(name);
            chains.insert(ChainId { table, name }, rules);
        };
        for (index, kinds) in state.iter().enumerate() {
            let Some(kinds) = kinds else { continue };
            let rules = kinds
                .iter()
                .map(|kind| rule(*kind, index, table, state, family));
            add(NAMES[index], rules.collect());
        }
        let jump = |index: usize| parse::rule(&format!("-j {}", NAMES[index]), family);
        let there = (0..2).filter(|index| state[*index].is_some());
        let jumps: Rules = there.map(jump).collect();
        if !jumps.is_empty() {
            add("OUTPUT", jumps);
        }
    }
    chains
}

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
            let send = |port: u16| {
                // A socket each: nat sees the first packet of a flow.
                let socket = UdpSocket::bind((loopback, 0)).unwrap();
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
            let ordered = |lines: Vec<String>| lines.into_iter().collect::<BTreeSet<_>>();
            assert_eq!(ordered(machine.saved(Family::V4)), ordered(wanted.clone()));
        }
    });
}
