//! Node lifecycle: silence is noticed, marked, and its Pods are moved away.
//!
//! A node lives as long as its Lease (or the heartbeat in its status) changes. When it last changed is judged by
//! this process's own steady clock and never by the time written inside: clocks of nodes differ.

mod eviction;
mod marks;

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use crate::config::ControllersConfig;
use crate::object::{Key, Kind, ObjRef, Object};
use crate::plan::{Clock, Controller, Plan};
use crate::pods;
use crate::state::{Change, State};

/// Where agents keep their Leases.
const LEASES: &str = "kube-node-lease";

/// The node lifecycle controller.
pub(crate) struct NodeLifecycle {
    grace: Duration,
    check: Duration,
    eviction: eviction::Evictions,
    seen: HashMap<ObjRef, Seen>,
}

/// The last sign of life.
struct Seen {
    sign: Sign,
    at: Duration,
}

/// What changes with every heartbeat: the Lease, and the time in the node's own status.
type Sign = (Option<String>, Option<MicroTime>, Option<Time>);

impl NodeLifecycle {
    pub(crate) fn new(config: &ControllersConfig) -> Self {
        Self {
            grace: config.node_grace,
            check: config.node_check,
            eviction: eviction::Evictions::new(config),
            seen: HashMap::new(),
        }
    }

    /// How long the node has been silent.
    fn silence(&mut self, key: &ObjRef, node: &Node, state: &State, clock: Clock) -> Duration {
        let lease = state.get::<Lease>(&Key::new(LEASES, &key.key.name));
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        // Conditions that this controller wrote itself are no sign of life.
        let own = marks::ready(node).is_some_and(|c| c.status == "Unknown");
        let beat = marks::ready(node)
            .filter(|_| !own)
            .and_then(|c| c.last_heartbeat_time.clone());
        let sign = (node.metadata.uid.clone(), renewed, beat);
        let seen = self.seen.entry(key.clone()).or_insert_with(|| Seen {
            sign: sign.clone(),
            at: clock.steady,
        });
        let lost_beat = own && seen.sign.0 == sign.0 && seen.sign.1 == sign.1;
        if seen.sign != sign && !lost_beat {
            *seen = Seen {
                sign,
                at: clock.steady,
            };
        }
        clock.steady.saturating_sub(seen.at)
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn touched(&self, change: &Change, _state: &State) -> Vec<ObjRef> {
        match change.object() {
            Some(node @ Object::Node(_)) => vec![node.reference()],
            Some(Object::Lease(lease)) => {
                let key = Key::of(&lease.metadata);
                let node = ObjRef::new(Kind::Node, "", &key.name);
                let ours = *key.namespace == *LEASES && change.new.is_some();
                ours.then_some(node).into_iter().collect()
            }
            // A Pod that arrives on a lost node, or whose agent calls it ready once more.
            Some(Object::Pod(pod)) if change.new.is_some() => {
                let node = pods::node_name(pod).map(|name| ObjRef::new(Kind::Node, "", name));
                node.filter(|_| moved_or_ready(change))
                    .into_iter()
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn plan(&mut self, key: &ObjRef, state: &State, clock: Clock) -> Plan {
        let mut plan = Plan::default();
        let (Some(node), Some(object)) = (state.get::<Node>(&key.key), state.object(key)) else {
            self.seen.remove(key);
            self.eviction.forget(key);
            return plan;
        };
        let silence = self.silence(key, node, state, clock);
        plan.retry_in(match self.grace.checked_sub(silence) {
            Some(left) if !left.is_zero() => left.min(self.check),
            _ => self.check,
        });
        let lost = silence >= self.grace;
        marks::plan(node, object, lost, clock, &mut plan);
        if marks::is_ready(node) && !lost {
            self.eviction.forget(key);
            return plan;
        }
        marks::pods(node, object, state, clock, &mut plan);
        self.eviction.plan(key, node, state, clock, &mut plan);
        plan
    }
}

fn moved_or_ready(change: &Change) -> bool {
    let facts = |object: &Option<Object>| match object {
        Some(Object::Pod(pod)) => {
            Some((pods::node_name(pod).map(str::to_owned), pods::is_ready(pod)))
        }
        _ => None,
    };
    facts(&change.old) != facts(&change.new)
}

#[cfg(test)]
mod tests;
