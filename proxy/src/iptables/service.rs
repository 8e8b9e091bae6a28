//! One Service: how each of its frontends is decided, and the chains that it has for itself, if any.
//!
//! ```text
//! cluster IP ──────────────────────────► endpoints, in the leaf of the dispatch itself
//!
//! of a Service with other frontends, affinity or many endpoints:
//! cluster IP ──────────────────────────► SVC or LOC (internal policy)
//! node port, external IP ──► EXT ──┬───► SVC   any usable endpoint
//! load balancer IP ► FW ─────┘     └───► LOC   endpoints of this node (external policy Local)
//! ```
//!
//! A packet that is decided never comes back to the dispatch: it is translated, or marked for the filter table and
//! accepted. There is no chain per endpoint, and for most Services none at all: what a change costs grows with the
//! rules in legacy iptables and with the chains in the nft variant. What kube-proxy does in those chains is one rule
//! for all: masquerade of an endpoint that reaches itself in POSTROUTING, the mark on what comes from elsewhere than
//! a pod in front of the dispatch.

use std::net::SocketAddr;
use std::sync::Arc;

use seaway_model::ownership::MARK_MASQUERADE;
use seaway_model::{
    Backend, Frontend, FrontendKind, ObjectKey, PortRule, ServiceRules, TrafficPolicy, WhenEmpty,
};

use super::names::{self, Role};
use super::plan::Settings;
use super::render::one_in;
use super::rule::{AddrMask, ChainName, Mark, Match, Rule, Rules, Target};

#[cfg(test)]
mod tests;

/// The most endpoints that stand in the leaf: packets for the other Services there pass them.
const MOST_IN_LEAF: usize = 8;

/// What one Service wants in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceChains {
    /// Its own chains, all in nat.
    pub chains: Vec<(ChainName, Rules)>,
    pub entries: Vec<Entry>,
}

/// What becomes of packets for this frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub frontend: Frontend,
    pub decision: Decision,
    pub owner: Arc<str>,
}

/// Where it is decided what becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// In that chain.
    Chain(ChainName),
    /// Where the frontend is recognised: one of these, each as likely as any other.
    Here(Vec<SocketAddr>),
}

/// The chains and entries of a Service in the family of `settings`.
pub fn chains(key: &ObjectKey, service: &ServiceRules, settings: &Settings) -> ServiceChains {
    let mut all = ServiceChains::default();
    for rule in service.ports.iter().filter(|r| r.family == settings.family) {
        port(&mut all, key, rule, settings);
    }
    all
}

/// What each of `count` rules in a row has to match so that all get the same share; the last takes what is left.
pub fn shares(count: usize) -> impl Iterator<Item = Option<Match>> {
    (1..=count)
        .rev()
        .map(|left| (left > 1).then(|| Match::Random(one_in(left))))
}

fn port(all: &mut ServiceChains, key: &ObjectKey, rule: &PortRule, settings: &Settings) {
    let owner = names::owner(key, rule);
    let entry = |frontend: &Frontend, decision| Entry {
        frontend: *frontend,
        decision,
        owner: owner.as_str().into(),
    };
    if let Some(decision) = in_leaf(rule) {
        let entries = rule.frontends.iter();
        all.entries
            .extend(entries.map(|frontend| entry(frontend, decision.clone())));
        return;
    }
    let name = |role| names::service_chain(role, &owner);
    let mut add = |role, mut rules: Vec<Rule>| {
        if let Some(first) = rules.first_mut().filter(|_| settings.comments) {
            first.comment = Some(owner.as_str().into());
        }
        all.chains.push((name(role), rules.into()));
    };
    if rule.uses_cluster() {
        add(Role::Cluster, balance(rule, TrafficPolicy::Cluster, &owner));
    }
    if rule.uses_local() {
        add(Role::Local, balance(rule, TrafficPolicy::Local, &owner));
    }
    if rule.is_external() {
        add(
            Role::External,
            external(rule, &name(Role::Cluster), &name(Role::Local), settings),
        );
    }
    let guarded = !rule.source_ranges.is_empty();
    if guarded
        && rule
            .frontends
            .iter()
            .any(|f| f.kind == FrontendKind::LoadBalancer)
    {
        add(Role::Firewall, firewall(rule, &name(Role::External)));
    }
    let internal = match rule.internal_policy {
        TrafficPolicy::Cluster => Role::Cluster,
        TrafficPolicy::Local => Role::Local,
    };
    let role = |kind| match kind {
        FrontendKind::ClusterIp => internal,
        FrontendKind::LoadBalancer if guarded => Role::Firewall,
        _ => Role::External,
    };
    let entries = rule.frontends.iter();
    all.entries
        .extend(entries.map(|f| entry(f, Decision::Chain(name(role(f.kind))))));
}

/// The decision, if it needs no chain: of a Service with nothing but a cluster IP.
fn in_leaf(rule: &PortRule) -> Option<Decision> {
    if rule.is_external() {
        return None;
    }
    let backends = rule.backends(rule.internal_policy);
    if backends.is_empty() {
        return Some(Decision::Chain(refusal(rule)));
    }
    if rule.affinity.is_some() || backends.len() > MOST_IN_LEAF {
        return None;
    }
    let backends = backends.iter().map(|backend| backend.addr);
    Some(Decision::Here(backends.collect()))
}

/// Chooses one of the backends that a policy allows.
fn balance(rule: &PortRule, policy: TrafficPolicy, owner: &str) -> Vec<Rule> {
    let backends = rule.backends(policy);
    if backends.is_empty() {
        return vec![Rule::new([], Target::Jump(refusal(rule)))];
    }
    let mut rules = Vec::new();
    let list = |backend: &Backend| names::affinity_list(owner, &backend.to_string());
    if let Some(timeout) = rule.affinity {
        // `xt_recent` counts whole seconds.
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        rules.extend(backends.iter().map(|backend| {
            let list = list(backend);
            let known = Match::RecentUpdate { list, seconds };
            let matches = [Match::Protocol(rule.protocol), known];
            Rule::new(matches, Target::Dnat(backend.addr))
        }));
    }
    for (backend, share) in backends.iter().zip(shares(backends.len())) {
        let mut matches = vec![Match::Protocol(rule.protocol)];
        matches.extend(share);
        if rule.affinity.is_some() {
            let list = list(backend);
            matches.push(Match::RecentSet { list });
        }
        rules.push(Rule::new(matches, Target::Dnat(backend.addr)));
    }
    rules
}

fn external(
    rule: &PortRule,
    cluster: &ChainName,
    local: &ChainName,
    settings: &Settings,
) -> Vec<Rule> {
    let masquerade =
        |matches: &[Match]| Rule::new(matches, Target::SetMark(Mark::bit(MARK_MASQUERADE)));
    let jump =
        |matches: &[Match], chain: &ChainName| Rule::new(matches, Target::Jump(chain.clone()));
    match rule.external_policy {
        // The endpoint may be on another node, which would answer the client directly.
        TrafficPolicy::Cluster => vec![masquerade(&[]), jump(&[], cluster)],
        // Clients inside of the cluster get any endpoint, as if they had gone out to a load balancer and come back.
        // The node itself may have used the frontend's address as its source: not one to answer to.
        TrafficPolicy::Local => {
            let mut rules = Vec::new();
            // Set in front of the dispatch, for cluster IPs.
            if settings.mark().is_some() {
                rules.push(Rule::new([], Target::SetMark(settings.unmark())));
            }
            let pods = settings.pods.iter();
            rules.extend(pods.map(|pods| jump(&[pods.matches()], cluster)));
            rules.push(masquerade(&[Match::SourceIsLocal]));
            rules.push(jump(&[Match::SourceIsLocal], cluster));
            rules.push(jump(&[], local));
            rules
        }
    }
}

fn firewall(rule: &PortRule, external: &ChainName) -> Vec<Rule> {
    let admit = |range| {
        let source = Match::Source(AddrMask::from(range));
        Rule::new([source], Target::Jump(external.clone()))
    };
    let mut rules: Vec<Rule> = rule.source_ranges.iter().copied().map(admit).collect();
    rules.push(Rule::new([], Target::Jump(ChainName::new(names::DROP))));
    rules
}

/// Leaves it to the filter table: nat can neither reject nor drop.
fn refusal(rule: &PortRule) -> ChainName {
    ChainName::new(match rule.when_empty() {
        WhenEmpty::Reject => names::REJECT,
        WhenEmpty::Drop => names::DROP,
    })
}
