//! Which endpoints a Service port may use on this node (kube-proxy: `CategorizeEndpoints` in `pkg/proxy/topology.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::usable;
use crate::desired::Backend;
use crate::inputs::{Endpoint, EndpointSlice, Family, ServicePort};

/// Where we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) node: &'a str,
    pub(super) zone: Option<&'a str>,
}

impl Place<'_> {
    fn has(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(self.node)
    }
}

/// How good an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Gets no traffic. May serve what it already has.
    Unusable,
    /// Going away but still answering: used when nothing is ready (KEP-1669).
    Draining,
    Ready,
}

/// What the hints of an endpoint say about us, for zones and for nodes alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hint {
    Missing,
    Elsewhere,
    Here,
}

impl Hint {
    fn of(hints: &[Arc<str>], here: Option<&str>) -> Self {
        if hints.is_empty() {
            Self::Missing
        } else if hints.iter().any(|hint| Some(&**hint) == here) {
            Self::Here
        } else {
            Self::Elsewhere
        }
    }
}

/// What is known of one ip:port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: State,
    serving: bool,
    local: bool,
    node_hint: Hint,
    zone_hint: Hint,
}

impl Seen {
    fn of(endpoint: &Endpoint, place: Place<'_>) -> Self {
        let state = if endpoint.ready {
            State::Ready
        } else if endpoint.serving && endpoint.terminating {
            State::Draining
        } else {
            State::Unusable
        };
        Self {
            state,
            serving: endpoint.serving || endpoint.ready,
            local: place.has(endpoint),
            node_hint: Hint::of(&endpoint.node_hints, Some(place.node)),
            zone_hint: Hint::of(&endpoint.zone_hints, place.zone),
        }
    }

    /// When two slices disagree about one ip:port, the better word counts, whatever the order of the slices: an
    /// endpoint that moves between slices is in both for a moment.
    fn merge(self, other: Self) -> Self {
        let serving = self.serving || other.serving;
        let best = match self.state.cmp(&other.state) {
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => Self {
                local: self.local || other.local,
                node_hint: self.node_hint.max(other.node_hint),
                zone_hint: self.zone_hint.max(other.zone_hint),
                ..self
            },
        };
        Self { serving, ..best }
    }
}

/// Which of the ready endpoints policy `Cluster` prefers (`trafficDistribution`, KEP-4444 and KEP-3015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    SameNode,
    SameZone,
    Anywhere,
}

/// The endpoints of one Service port in one family: the union over all slices, joined by port name and protocol.
pub(super) struct Endpoints(BTreeMap<SocketAddr, Seen>);

impl Endpoints {
    pub(super) fn join(
        slices: &[&EndpointSlice],
        port: &ServicePort,
        family: Family,
        place: Place<'_>,
    ) -> Self {
        let mut endpoints = BTreeMap::new();
        for slice in slices.iter().filter(|s| s.family == family) {
            let target_ports = slice
                .ports
                .iter()
                .filter(|p| p.name == port.name && p.protocol == port.protocol && p.port != 0);
            for target in target_ports {
                for endpoint in &slice.endpoints {
                    let Some(ip) = address(endpoint, family) else {
                        continue;
                    };
                    let seen = Seen::of(endpoint, place);
                    endpoints
                        .entry(SocketAddr::new(ip, target.port))
                        .and_modify(|best: &mut Seen| *best = best.merge(seen))
                        .or_insert(seen);
                }
            }
        }
        Self(endpoints)
    }

    /// Whether any can be used, on any node.
    pub(super) fn any(&self) -> bool {
        self.0.values().any(|seen| seen.state != State::Unusable)
    }

    /// For policy `Cluster`: the ready ones that topology prefers; if none is ready, the ones that terminate but still
    /// serve, wherever they are: topology prefers only what is ready.
    pub(super) fn cluster(&self) -> Vec<Backend> {
        let topology = self.topology();
        self.choose(|seen| match topology {
            Topology::SameNode => seen.node_hint == Hint::Here,
            Topology::SameZone => seen.zone_hint == Hint::Here,
            Topology::Anywhere => true,
        })
    }

    /// For policy `Local`: the ones on this node, whatever topology prefers.
    pub(super) fn local(&self) -> Vec<Backend> {
        self.choose(|seen| seen.local)
    }

    /// Those that answer, in none of the sets (which are sorted by address).
    pub(super) fn lingering(&self, sets: [&[Backend]; 2]) -> Vec<SocketAddr> {
        let chosen = |addr: &SocketAddr| {
            sets.iter()
                .any(|set| set.binary_search_by_key(addr, |b| b.addr).is_ok())
        };
        self.0
            .iter()
            .filter(|(addr, seen)| seen.serving && !chosen(addr))
            .map(|(&addr, _)| addr)
            .collect()
    }

    fn choose(&self, suits: impl Fn(&Seen) -> bool) -> Vec<Backend> {
        let of_state = |wanted| {
            let mut backends: Vec<Backend> = self
                .0
                .iter()
                .filter(|(_, seen)| seen.state == wanted && suits(seen))
                .map(|(&addr, &Seen { local, .. })| Backend { addr, local })
                .collect();
            // Nearly all have one or two, and room for four.
            backends.shrink_to_fit();
            backends
        };
        let ready = of_state(State::Ready);
        if ready.is_empty() {
            of_state(State::Draining)
        } else {
            ready
        }
    }

    /// Hints count only when every ready endpoint has one and at least one is for us: a half-written set of hints, or
    /// one that leaves us out, must not concentrate all traffic on a few endpoints or on none.
    fn topology(&self) -> Topology {
        let ready = || self.0.values().filter(|seen| seen.state == State::Ready);
        let prefers = |hint: fn(&Seen) -> Hint| {
            ready().all(|seen| hint(seen) != Hint::Missing)
                && ready().any(|seen| hint(seen) == Hint::Here)
        };
        if prefers(|seen| seen.node_hint) {
            Topology::SameNode
        } else if prefers(|seen| seen.zone_hint) {
            Topology::SameZone
        } else {
            Topology::Anywhere
        }
    }
}

/// How many endpoints on this node are ready, for the health check of a load balancer. An endpoint with several ports
/// counts once; of a dual-stack Service, whose pods have an address in each family, the family with more counts.
pub(super) fn local_ready(slices: &[&EndpointSlice], place: Place<'_>) -> usize {
    let ready = |family| {
        let with_ports = slices
            .iter()
            .filter(|s| s.family == family && s.ports.iter().any(|port| port.port != 0));
        let addresses: BTreeSet<_> = with_ports
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.ready && place.has(endpoint))
            .filter_map(|endpoint| address(endpoint, family))
            .collect();
        addresses.len()
    };
    ready(Family::V4).max(ready(Family::V6))
}

/// Its address, if it can be forwarded to.
fn address(endpoint: &Endpoint, family: Family) -> Option<std::net::IpAddr> {
    Some(endpoint.address).filter(|ip| usable(*ip, family))
}
