//! The chains that are there whatever the Services are, and the jumps into them.

use seaway_model::Protocol;
use seaway_model::ownership::{MARK_DROP, MARK_MASQUERADE, MARK_REJECT};

use super::names;
use super::plan::{PodSource, Settings};
use super::render;
use super::rule::{ChainId, ChainName, CtState, Mark, Match, Rule, Rules, Table, Target};

#[cfg(test)]
mod tests;

/// Fixed chains of ours, and what we want in the built-in ones.
pub fn chains(settings: &Settings) -> Vec<(ChainId, Rules)> {
    let mut chains = vec![
        (nat(names::POSTROUTING), postrouting(settings)),
        (nat(names::REJECT), refuse(MARK_REJECT)),
        (nat(names::DROP), refuse(MARK_DROP)),
        unknown_port(settings.unknown_ports),
        (filter(names::FILTER), refusals(settings)),
        (filter(names::FORWARD), forward(settings)),
    ];
    if settings.pods.len() > 1 {
        chains.push((nat(names::NOT_FROM_POD), not_from_pod(settings)));
    }
    chains.extend(jumps());
    chains
        .into_iter()
        .map(|(id, rules)| (id, Rules::from(rules)))
        .collect()
}

/// Whether the kernel itself makes the chain. What is neither ours nor built in is somebody's own, with a jump to us.
pub fn is_built_in(id: &ChainId) -> bool {
    let hooks = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    hooks.contains(&id.name.as_str())
}

fn jumps() -> Vec<(ChainId, Vec<Rule>)> {
    let jump = |table, from: &str, matches: &[Match], to: &str| {
        let id = ChainId {
            table,
            name: ChainName::new(from),
        };
        // No comment: to iptables it is one more thing to match, for each packet in filter, and the names say as much.
        (
            id,
            vec![Rule::new(matches, Target::Jump(ChainName::new(to)))],
        )
    };
    let new = [Match::Conntrack(CtState::New)];
    vec![
        jump(Table::Nat, "PREROUTING", &[], names::SERVICES),
        jump(Table::Nat, "OUTPUT", &[], names::SERVICES),
        jump(Table::Nat, "POSTROUTING", &[], names::POSTROUTING),
        jump(Table::Filter, "INPUT", &new, names::FILTER),
        jump(Table::Filter, "OUTPUT", &new, names::FILTER),
        jump(Table::Filter, "FORWARD", &[], names::FORWARD),
    ]
}

fn postrouting(settings: &Settings) -> Vec<Rule> {
    let masquerade = Target::Masquerade {
        random_fully: settings.random_fully,
    };
    let marked = Mark::bit(MARK_MASQUERADE);
    vec![
        // One rule instead of one per endpoint; only translated packets are looked at.
        Rule::new(
            [Match::Conntrack(CtState::Dnat), Match::SameAddress],
            masquerade.clone(),
        )
        .comment("endpoint that reached itself"),
        Rule::new([Match::NotMark(marked)], Target::Return),
        // Cleared, so that a second pass (a tunnel) does not masquerade the outer packet.
        Rule::new([], Target::SetMark(settings.unmark())),
        Rule::new([], masquerade),
    ]
}

/// Leaves a packet to [`refusals`]: nat can neither reject nor drop.
fn refuse(bit: u32) -> Vec<Rule> {
    vec![
        Rule::new([], Target::SetMark(Mark::bit(bit))),
        Rule::new([], Target::Accept),
    ]
}

/// What nat has marked, and what nat had no rule for although it is for a cluster IP.
fn refusals(settings: &Settings) -> Vec<Rule> {
    let tcp = Match::Protocol(Protocol::Tcp);
    let reject = Match::Mark(Mark::bit(MARK_REJECT));
    let mut rules = vec![
        Rule::new([tcp, reject.clone()], Target::RejectWithReset)
            .comment("Service without endpoints"),
        Rule::new([reject], Target::Reject).comment("Service without endpoints"),
        Rule::new([Match::Mark(Mark::bit(MARK_DROP))], Target::Drop)
            .comment("no endpoint allowed by policy, or source not allowed"),
    ];
    if settings.unknown_ports == Table::Filter {
        rules.extend([
            Rule::new([Match::Conntrack(CtState::Dnat)], Target::Return),
            Rule::new([], Target::Jump(ChainName::new(names::CLUSTER_IPS))),
        ]);
    }
    rules
}

/// For what asks a cluster IP for a port that nobody has there. Other protocols (a ping) are left alone.
fn unknown_port(table: Table) -> (ChainId, Vec<Rule>) {
    let refuse = |protocol| {
        let target = match (table, protocol) {
            (Table::Nat, _) => Target::Jump(ChainName::new(names::REJECT)),
            (Table::Filter, Protocol::Tcp) => Target::RejectWithReset,
            (Table::Filter, Protocol::Udp | Protocol::Sctp) => Target::Reject,
        };
        Rule::new([Match::Protocol(protocol)], target)
    };
    let name = ChainName::new(names::UNKNOWN_PORT);
    (
        ChainId { table, name },
        render::PROTOCOLS.map(refuse).to_vec(),
    )
}

fn forward(settings: &Settings) -> Vec<Rule> {
    // The states exclude each other, and nearly all packets are of this one: every packet that the node forwards pays
    // for the rules before it.
    let mut rules = vec![Rule::new(
        [Match::Conntrack(CtState::RelatedOrEstablished)],
        Target::Accept,
    )];
    if settings.drop_invalid {
        // A reset that conntrack cannot place would pass untranslated and cut the client's connection
        // (kubernetes/kubernetes#74839).
        rules.push(Rule::new(
            [Match::Conntrack(CtState::Invalid)],
            Target::Drop,
        ));
    }
    rules.extend([
        Rule::new(
            [Match::Conntrack(CtState::New)],
            Target::Jump(ChainName::new(names::FILTER)),
        ),
        Rule::new([Match::Mark(Mark::bit(MARK_MASQUERADE))], Target::Accept),
    ]);
    rules
}

fn not_from_pod(settings: &Settings) -> Vec<Rule> {
    let from_pod = |pods: &PodSource| Rule::new([pods.matches()], Target::Return);
    let mut rules: Vec<Rule> = settings.pods.iter().map(from_pod).collect();
    rules.push(Rule::new([], Target::SetMark(Mark::bit(MARK_MASQUERADE))));
    rules
}

fn nat(name: &str) -> ChainId {
    ChainId::nat(&ChainName::new(name))
}

fn filter(name: &str) -> ChainId {
    ChainId::filter(&ChainName::new(name))
}
