//! One Service, as the chains that it has for itself and the entries by which packets get there.
//!
//! ```text
//! cluster IP ──────────────────────────► SVC or LOC (internal policy)
//! node port, external IP ──► EXT ──┬───► SVC   any usable endpoint
//! load balancer IP ► FW ─────┘     └───► LOC   endpoints of this node (external policy Local)
//! ```
//!
//! A packet that enters one of these chains never comes back to the dispatch: it is translated, or marked for the
//! filter table and accepted. There is no chain per endpoint: the nft variant of `iptables-restore` takes time that
//! is quadratic in the number of chains. What kube-proxy does there (masquerade of an endpoint that reaches itself)
//! is one rule in POSTROUTING for all of them.

use std::sync::Arc;

use seaway_model::ownership::{MARK_DROP, MARK_MASQUERADE, MARK_REJECT};
use seaway_model::{
    Backend, Frontend, FrontendAddr, FrontendKind, ObjectKey, PortRule, ServiceRules,
    TrafficPolicy, WhenEmpty,
};

use super::names::{self, Role};
use super::plan::{PodSource, Settings};
use super::render::one_in;
use super::rule::{AddrMask, ChainName, Mark, Match, Rule, Rules, Target};

#[cfg(test)]
mod tests;

/// What one Service wants in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceChains {
    /// Its own chains, all in nat.
    pub chains: Vec<(ChainName, Rules)>,
    pub entries: Vec<Entry>,
}

/// Packets for this frontend go to that chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub frontend: Frontend,
    pub chain: ChainName,
    pub owner: Arc<str>,
}

/// The chains and entries of a Service in the family of `settings`.
pub fn chains(key: &ObjectKey, service: &ServiceRules, settings: &Settings) -> ServiceChains {
    let mut all = ServiceChains::default();
    for rule in service.ports.iter().filter(|r| r.family == settings.family) {
        port(&mut all, key, rule, settings);
    }
    all
}

fn port(all: &mut ServiceChains, key: &ObjectKey, rule: &PortRule, settings: &Settings) {
    let owner = names::owner(key, rule);
    let name = |role| names::service_chain(role, &owner);
    let mut add = |role, mut rules: Vec<Rule>| {
        if let Some(first) = rules.first_mut() {
            first.comment = Some(owner.as_str().into());
        }
        all.chains.push((name(role), rules.into()));
    };
    if rule.uses_cluster() {
        add(
            Role::Cluster,
            balance(rule, TrafficPolicy::Cluster, &owner, settings),
        );
    }
    if rule.uses_local() {
        add(
            Role::Local,
            balance(rule, TrafficPolicy::Local, &owner, settings),
        );
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
    let owner: Arc<str> = owner.as_str().into();
    all.entries
        .extend(rule.frontends.iter().map(|frontend| Entry {
            frontend: *frontend,
            chain: name(match frontend.kind {
                FrontendKind::ClusterIp => internal,
                FrontendKind::LoadBalancer if guarded => Role::Firewall,
                _ => Role::External,
            }),
            owner: Arc::clone(&owner),
        }));
}

/// Chooses one of the backends that a policy allows.
fn balance(rule: &PortRule, policy: TrafficPolicy, owner: &str, settings: &Settings) -> Vec<Rule> {
    let backends = rule.backends(policy);
    if backends.is_empty() {
        let bit = match rule.when_empty() {
            WhenEmpty::Reject => MARK_REJECT,
            WhenEmpty::Drop => MARK_DROP,
        };
        return refuse(bit);
    }
    let mut rules = Vec::new();
    if policy == rule.internal_policy {
        rules.extend(cluster_ip_masquerade(rule, settings));
    }
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
    for (i, backend) in backends.iter().enumerate() {
        let mut matches = vec![Match::Protocol(rule.protocol)];
        let left = backends.len() - i;
        if left > 1 {
            matches.push(Match::Random(one_in(left)));
        }
        if rule.affinity.is_some() {
            let list = list(backend);
            matches.push(Match::RecentSet { list });
        }
        rules.push(Rule::new(matches, Target::Dnat(backend.addr)));
    }
    rules
}

/// Replies to clients outside of the cluster must come back through this node. The chain is shared with the external
/// frontends, which have their own rules for this: hence the match on the cluster IP.
fn cluster_ip_masquerade(rule: &PortRule, settings: &Settings) -> Option<Rule> {
    let cluster_ip = rule.frontends.iter().find_map(|f| match (f.kind, f.addr) {
        (FrontendKind::ClusterIp, FrontendAddr::Ip(ip)) => Some(ip),
        _ => None,
    })?;
    let destination = Match::Destination(AddrMask::host(cluster_ip));
    let mark = Target::SetMark(Mark::bit(MARK_MASQUERADE));
    match settings.pods.as_slice() {
        _ if settings.masquerade_all => Some(Rule::new([destination], mark)),
        [] => None,
        // In the order in which iptables prints them.
        [PodSource::Range(range)] => Some(Rule::new([Match::NotSource(*range), destination], mark)),
        [PodSource::Link(link)] => {
            let elsewhere = Match::NotInLink(link.clone());
            Some(Rule::new([destination, elsewhere], mark))
        }
        _ => Some(Rule::new(
            [destination],
            Target::Jump(ChainName::new(names::NOT_FROM_POD)),
        )),
    }
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
            let mut rules: Vec<Rule> = settings
                .pods
                .iter()
                .map(|pods| jump(&[pods.matches()], cluster))
                .collect();
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
    rules.extend(refuse(MARK_DROP));
    rules
}

/// Leaves it to the filter table: nat can neither reject nor drop.
fn refuse(bit: u32) -> Vec<Rule> {
    vec![
        Rule::new([], Target::SetMark(Mark::bit(bit))),
        Rule::new([], Target::Accept),
    ]
}
