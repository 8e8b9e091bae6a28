//! Generated content of our chains, and what it may become.

use proptest::collection::vec;
use proptest::prelude::*;
use seaway_model::Family;
use seaway_proxy::iptables::parse;
use seaway_proxy::iptables::plan::Chains;
use seaway_proxy::iptables::rule::{ChainId, ChainName, Rule, Rules, Table};

/// Chains of ours; each may jump to those behind it.
pub(crate) const NAMES: [&str; 5] = ["SEAWAY-A", "SEAWAY-B", "SEAWAY-C", "SEAWAY-D", "SEAWAY-E"];

/// Rules by number, for each of [`NAMES`]; `None`: there is no such chain.
pub(crate) type State = Vec<Option<Vec<usize>>>;

/// How many rules there are to choose from: few, so that some stand in a chain more than once.
const KINDS: usize = 16;

#[derive(Debug, Clone)]
pub(crate) enum Edit {
    Insert(usize),
    Replace(usize),
    Delete,
    /// The chain comes or goes.
    Toggle,
}

/// What a state becomes.
#[derive(Debug, Clone)]
pub(crate) enum Next {
    Other(State),
    /// Edits by chain and place.
    Edited(Vec<(usize, usize, Edit)>),
}

pub(crate) fn state() -> impl Strategy<Value = State> {
    let chain = prop::option::weighted(0.8, vec(0..KINDS, 0..14));
    vec(chain, NAMES.len())
}

pub(crate) fn next() -> impl Strategy<Value = Next> {
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

pub(crate) fn follow(mut state: State, next: &Next) -> State {
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
pub(crate) fn chains(state: &State, family: Family) -> Chains {
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
