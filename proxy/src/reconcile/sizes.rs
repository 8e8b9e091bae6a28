//! Sums over all Services, kept up to date by each that changes.

use std::collections::BTreeMap;

use seaway_model::{Family, PortRule, ServiceRules, TrafficPolicy};

/// What the metrics say about the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    backends: usize,
    /// Ports whose internal and whose external policy finds no endpoint on this node.
    without_local: BTreeMap<Family, (usize, usize)>,
}

impl Sizes {
    pub(super) fn add(&mut self, rules: &ServiceRules) {
        for port in &rules.ports {
            self.backends += port.cluster.len();
            let (internal, external) = lacks_local(port);
            let counts = self.without_local.entry(port.family).or_default();
            counts.0 += usize::from(internal);
            counts.1 += usize::from(external);
        }
    }

    /// Takes back what was added.
    pub(super) fn remove(&mut self, rules: &ServiceRules) {
        for port in &rules.ports {
            self.backends -= port.cluster.len();
            let (internal, external) = lacks_local(port);
            let counts = self.without_local.entry(port.family).or_default();
            counts.0 -= usize::from(internal);
            counts.1 -= usize::from(external);
        }
    }

    /// Backends of all ports of all Services.
    pub(super) fn backends(&self) -> usize {
        self.backends
    }

    /// Per family: ports without an endpoint on this node under internal and under external policy `Local`.
    pub(super) fn without_local_endpoints(
        &self,
    ) -> impl Iterator<Item = (Family, usize, usize)> + '_ {
        self.without_local
            .iter()
            .map(|(family, (internal, external))| (*family, *internal, *external))
    }
}

/// Whether traffic from inside, and from outside, is dropped here although there are endpoints elsewhere.
fn lacks_local(port: &PortRule) -> (bool, bool) {
    let lacks = port.any_endpoints && port.local.is_empty();
    let internal = port.internal_policy == TrafficPolicy::Local;
    let external = port.external_policy == TrafficPolicy::Local && port.is_external();
    (lacks && internal, lacks && external)
}
