//! Eviction: deletes the Pods of a node with `NoExecute` taints, each after the time that it tolerates.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::marks::{self, NOT_READY, UNREACHABLE};
use crate::config::ControllersConfig;
use crate::object::{Key, Kind, ObjRef};
use crate::plan::{Clock, EventDraft, Op, Plan};
use crate::pods;
use crate::scheduler::tolerates;
use crate::state::State;

/// Which nodes are being emptied, and how fast.
pub(super) struct Evictions {
    after: Duration,
    pause: Duration,
    /// Since when each taint is known, by our own steady clock.
    tainted: HashMap<ObjRef, Duration>,
    /// Nodes whose eviction has begun.
    begun: HashSet<ObjRef>,
    next: Duration,
}

impl Evictions {
    pub(super) fn new(config: &ControllersConfig) -> Self {
        Self {
            after: config.eviction_after,
            pause: config.eviction_pause,
            tainted: HashMap::new(),
            begun: HashSet::new(),
            next: Duration::ZERO,
        }
    }

    /// The node is well again, or gone.
    pub(super) fn forget(&mut self, key: &ObjRef) {
        self.tainted.remove(key);
        self.begun.remove(key);
    }

    pub(super) fn plan(
        &mut self,
        key: &ObjRef,
        node: &Node,
        state: &State,
        clock: Clock,
        plan: &mut Plan,
    ) {
        let taints = node
            .spec
            .as_ref()
            .and_then(|s| s.taints.clone())
            .unwrap_or_default();
        let taints: Vec<Taint> = taints
            .into_iter()
            .filter(|t| t.effect == "NoExecute")
            .collect();
        if taints.is_empty() {
            return;
        }
        let since = *self.tainted.entry(key.clone()).or_insert(clock.steady);
        // If no node at all is well, it is more likely that this control plane is cut off than that all are dead.
        if !state.all::<Node>().any(|node| marks::is_ready(node)) {
            self.tainted.insert(key.clone(), clock.steady);
            return;
        }
        let elapsed = clock.steady.saturating_sub(since);
        let name = &*key.key.name;
        let mut due = Vec::new();
        for pod in state.pods_on(name).filter(|pod| !pods::is_terminating(pod)) {
            match self.tolerated_for(pod, &taints) {
                Some(limit) if limit <= elapsed => due.push(pod),
                Some(limit) => plan.retry_in(limit - elapsed),
                None => {}
            }
        }
        if due.is_empty() {
            return;
        }
        if !self.begun.contains(key) {
            if clock.steady < self.next {
                plan.retry_in(self.next - clock.steady);
                return;
            }
            self.begun.insert(key.clone());
            self.next = clock.steady + self.pause;
        }
        plan.parallel_from.get_or_insert(plan.steps.len());
        for pod in due {
            evict(pod, state, plan);
        }
    }

    /// How long a Pod may stay: the shortest of what it tolerates of each taint, `None` for ever.
    fn tolerated_for(&self, pod: &Pod, taints: &[Taint]) -> Option<Duration> {
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref());
        let tolerations = tolerations.unwrap_or_default();
        let limits = taints.iter().filter_map(|taint| {
            let mut fitting = tolerations
                .iter()
                .filter(|t| tolerates(t, taint))
                .peekable();
            if fitting.peek().is_none() {
                // What admission adds to every Pod in Kubernetes (DefaultTolerationSeconds).
                let lost = matches!(&*taint.key, NOT_READY | UNREACHABLE);
                return Some(if lost { self.after } else { Duration::ZERO });
            }
            let seconds = fitting.filter_map(|t| t.toleration_seconds).min()?;
            Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        });
        limits.min()
    }
}

fn evict(pod: &Pod, state: &State, plan: &mut Plan) {
    let at = ObjRef {
        kind: Kind::Pod,
        key: Key::of(&pod.metadata),
    };
    let message = format!(
        "Marking for deletion Pod {}/{}",
        at.key.namespace, at.key.name
    );
    let event = state
        .object(&at)
        .map(|about| EventDraft::normal(about, "TaintManagerEviction", message));
    let op = Op::delete(Kind::Pod, &pod.metadata);
    plan.steps.push(crate::plan::Step { op, event });
}
