//! A packet led through the rules without a kernel: what may become of it, and how likely each outcome is.
//!
//! Knows just what this project writes and stops at anything else, so that it can be held against
//! [`seaway_model::outcomes`]. The client is one that was never seen before: nothing is on a [`Match::RecentUpdate`]
//! list.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use seaway_model::{DetectLocal, NodeContext, Origin, Outcome, Packet};

use super::plan::Chains;
use super::rule::{ChainId, ChainName, CtState, LinkPattern, Mark, Match, Rule, Table, Target};

#[cfg(test)]
mod tests;

/// One over the kernel's resolution of a probability: 2^31.
const PROBABILITY_ONE: f64 = 2_147_483_648.0;

/// Through which packets of others come in.
const UPLINK: &str = "eth0";

/// What may become of a packet, and how likely.
pub type Likelihoods = BTreeMap<Outcome, f64>;

/// Why a walk could not be finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A jump to a chain that does not exist.
    #[error("chain {0} does not exist")]
    NoChain(String),
    /// A rule that this project would not write.
    #[error("cannot follow rule {0:?}")]
    Unknown(Box<Rule>),
    /// Chains that lead back to themselves.
    #[error("chain {0} leads back to itself")]
    Loop(String),
}

/// Leads the first packet of a flow through nat, filter and the masquerade.
pub fn walk(
    chains: &Chains,
    packet: &Packet,
    node: &NodeContext,
) -> Result<Likelihoods, WalkError> {
    let walk = Walk {
        chains,
        packet,
        node,
    };
    let start = State {
        destination: packet.destination,
        mark: 0,
        translated: false,
        likelihood: 1.0,
    };
    let mut outcomes = Likelihoods::new();
    let (first, forwarded) = match packet.origin {
        Origin::NodeProcess => ("OUTPUT", "OUTPUT"),
        Origin::LocalPod | Origin::External => ("PREROUTING", "FORWARD"),
    };
    for (state, _) in walk.hook(Table::Nat, first, start)? {
        let incoming = first == "PREROUTING" && node.is_node(state.destination.ip());
        let filter = if incoming { "INPUT" } else { forwarded };
        for (state, end) in walk.hook(Table::Filter, filter, state)? {
            let outcome = match end {
                End::Refused => Outcome::Reject,
                End::Dropped => Outcome::Drop,
                End::Taken | End::Returned if !state.translated => Outcome::Pass,
                End::Taken | End::Returned => {
                    for (state, end) in walk.hook(Table::Nat, "POSTROUTING", state)? {
                        let outcome = Outcome::Deliver {
                            backend: state.destination,
                            masqueraded: end == End::Taken,
                        };
                        *outcomes.entry(outcome).or_default() += state.likelihood;
                    }
                    continue;
                }
            };
            *outcomes.entry(outcome).or_default() += state.likelihood;
        }
    }
    Ok(outcomes)
}

/// The packet on its way.
#[derive(Debug, Clone, Copy)]
struct State {
    destination: SocketAddr,
    mark: u32,
    translated: bool,
    likelihood: f64,
}

/// How a chain was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Through its end, or RETURN.
    Returned,
    /// ACCEPT or a translation: the hook is done with the packet.
    Taken,
    Refused,
    Dropped,
}

struct Walk<'a> {
    chains: &'a Chains,
    packet: &'a Packet,
    node: &'a NodeContext,
}

impl Walk<'_> {
    fn hook(&self, table: Table, hook: &str, state: State) -> Result<Vec<(State, End)>, WalkError> {
        let id = ChainId {
            table,
            name: ChainName::new(hook),
        };
        match self.chains.get(&id) {
            Some(rules) => self.rules(table, rules, state, 0),
            // Nothing of ours in this hook.
            None => Ok(vec![(state, End::Returned)]),
        }
    }

    /// Follows every way through a chain that chance allows.
    fn rules(
        &self,
        table: Table,
        rules: &[Rule],
        state: State,
        depth: usize,
    ) -> Result<Vec<(State, End)>, WalkError> {
        let Some((rule, rest)) = rules.split_first() else {
            return Ok(vec![(state, End::Returned)]);
        };
        let chance = self.chance(rule, &state)?;
        let mut ways = Vec::new();
        if chance < 1.0 {
            let missed = State {
                likelihood: state.likelihood * (1.0 - chance),
                ..state
            };
            ways.extend(self.rules(table, rest, missed, depth)?);
        }
        if chance > 0.0 {
            let hit = State {
                likelihood: state.likelihood * chance,
                ..state
            };
            for (state, end) in self.target(table, rule, hit, depth)? {
                match end {
                    Some(end) => ways.push((state, end)),
                    None => ways.extend(self.rules(table, rest, state, depth)?),
                }
            }
        }
        Ok(ways)
    }

    /// What the target does; `None`: the next rule follows.
    fn target(
        &self,
        table: Table,
        rule: &Rule,
        mut state: State,
        depth: usize,
    ) -> Result<Vec<(State, Option<End>)>, WalkError> {
        let end = match &rule.target {
            Target::Accept | Target::Masquerade { .. } => Some(End::Taken),
            Target::Drop => Some(End::Dropped),
            Target::Reject | Target::RejectWithReset => Some(End::Refused),
            Target::Return => Some(End::Returned),
            Target::SetMark(Mark { value, mask }) => {
                state.mark = (state.mark & !mask) ^ value;
                None
            }
            Target::Dnat(to) => {
                state.destination = *to;
                state.translated = true;
                Some(End::Taken)
            }
            Target::Jump(name) => return self.jump(table, name, state, depth),
            Target::None => return Err(WalkError::Unknown(Box::new(rule.clone()))),
        };
        Ok(vec![(state, end)])
    }

    fn jump(
        &self,
        table: Table,
        name: &ChainName,
        state: State,
        depth: usize,
    ) -> Result<Vec<(State, Option<End>)>, WalkError> {
        if depth > self.chains.len() {
            return Err(WalkError::Loop(name.to_string()));
        }
        let id = ChainId {
            table,
            name: name.clone(),
        };
        let rules = self
            .chains
            .get(&id)
            .ok_or_else(|| WalkError::NoChain(name.to_string()))?;
        let back = |(state, end)| match end {
            End::Returned => (state, None),
            end => (state, Some(end)),
        };
        let ways = self.rules(table, rules, state, depth + 1)?;
        Ok(ways.into_iter().map(back).collect())
    }

    /// How likely the rule matches.
    fn chance(&self, rule: &Rule, state: &State) -> Result<f64, WalkError> {
        let mut chance = 1.0;
        for part in &rule.matches {
            let holds = match part {
                Match::Source(net) => net.contains(self.packet.source),
                Match::NotSource(net) => !net.contains(self.packet.source),
                Match::Destination(net) => net.contains(state.destination.ip()),
                Match::NotDestination(net) => !net.contains(state.destination.ip()),
                Match::InLink(link) => self.came_in_through(link),
                Match::NotInLink(link) => !self.came_in_through(link),
                Match::Protocol(protocol) => *protocol == self.packet.protocol,
                Match::DestinationPorts(protocol, first, last) => {
                    *protocol == self.packet.protocol
                        && (first..=last).contains(&&state.destination.port())
                }
                Match::SourceIsLocal => self.is_local(self.packet.source),
                Match::DestinationIsLocal => self.is_local(state.destination.ip()),
                Match::Conntrack(CtState::New) => true,
                Match::Conntrack(CtState::Dnat) => state.translated,
                Match::Conntrack(CtState::Invalid | CtState::RelatedOrEstablished) => false,
                Match::Mark(mark) => state.mark & mark.mask == mark.value,
                Match::NotMark(mark) => state.mark & mark.mask != mark.value,
                Match::SameAddress => self.packet.source == state.destination.ip(),
                Match::RecentSet { .. } => true,
                Match::RecentUpdate { .. } => false,
                Match::Random(n) => {
                    chance *= f64::from(*n) / PROBABILITY_ONE;
                    continue;
                }
                Match::Opaque(_) => return Err(WalkError::Unknown(Box::new(rule.clone()))),
            };
            if !holds {
                return Ok(0.0);
            }
        }
        Ok(chance)
    }

    /// Packets of pods come in through the link that the setting names, packets of processes through none, the
    /// others through the uplink.
    fn came_in_through(&self, pattern: &LinkPattern) -> bool {
        match self.packet.origin {
            Origin::LocalPod => match &self.node.detect_local {
                DetectLocal::BridgeInterface(bridge) => pattern.matches(bridge),
                DetectLocal::InterfaceNamePrefix(prefix) => pattern.matches(&format!("{prefix}0")),
                _ => false,
            },
            Origin::NodeProcess => false,
            Origin::External => pattern.matches(UPLINK),
        }
    }

    fn is_local(&self, addr: std::net::IpAddr) -> bool {
        addr.is_loopback() || self.node.is_node(addr)
    }
}
