//! The loop: take changes in, derive, plan, apply; after an error look again and converge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use seaway_model::{
    Change, Desired, Diagnostic, InputEvent, Inputs, Node, NodeSettings, ObjectKey, derive_service,
    keep_lifeline, pack,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::companion::Companion;
use crate::conntrack::Cleaner;
use crate::dataplane::{ApplyError, Dataplane, Report};
use crate::events::Events;
use crate::health::Health;
use crate::healthcheck::HealthChecks;
use crate::metrics::{Metrics, Seen};
use crate::switch::Order;
use sizes::Sizes;

mod sizes;

/// First wait after a failed sync; doubles with each further failure.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Changes taken in before a sync is forced, so that a flood cannot starve the kernel of updates.
const BATCH: usize = 4096;

/// Inputs and the rules derived from them, moved on by events. Pure: no kernel, no clock.
#[derive(Debug, Default)]
pub struct Deriver {
    settings: NodeSettings,
    inputs: Inputs,
    desired: Desired,
    diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    dirty: BTreeSet<ObjectKey>,
    /// Of all Services, kept as a running sum.
    sizes: Sizes,
}

impl Deriver {
    /// A deriver for the node with these settings.
    pub fn new(settings: NodeSettings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Takes other settings: everything is looked at anew.
    pub fn settle(&mut self, settings: NodeSettings) {
        if self.settings != settings {
            self.dirty.extend(self.desired.services.keys().cloned());
            self.settings = settings;
        }
    }

    /// Takes one event in. Returns whether it changed anything that concerns the kernel.
    pub fn absorb(&mut self, event: InputEvent) -> bool {
        let was_synced = self.inputs.synced;
        let touched = self.inputs.apply(event);
        let changed = !touched.is_empty() || self.inputs.synced != was_synced;
        self.dirty.extend(touched);
        changed
    }

    /// Whether every input has been listed once; before that nothing may be programmed.
    pub fn is_synced(&self) -> bool {
        self.inputs.synced
    }

    /// Derives what the events since the last call touched. Returns those Services, and the diagnostics that were
    /// not there before.
    pub fn derive(&mut self) -> (BTreeSet<ObjectKey>, Vec<Diagnostic>) {
        let dirty = std::mem::take(&mut self.dirty);
        // After a list. Before the rules are made, so that they take the room that is left.
        let listed = dirty.len() * 2 > self.inputs.services.len();
        if listed {
            self.inputs.pack();
        }
        let mut fresh = Vec::new();
        for key in &dirty {
            let (mut rules, mut diagnostics) = derive_service(&self.inputs, key, &self.settings);
            if let Some(rules) = &mut rules {
                let before = self.desired.services.get(key);
                diagnostics.extend(keep_lifeline(key, before, rules));
            }
            let known = self.diagnostics.get(key);
            fresh.extend(
                diagnostics
                    .iter()
                    .filter(|d| !known.is_some_and(|k| k.contains(d)))
                    .cloned(),
            );
            if diagnostics.is_empty() {
                self.diagnostics.remove(key);
            } else {
                self.diagnostics.insert(key.clone(), diagnostics);
            }
            if let Some(rules) = &rules {
                self.sizes.add(rules);
            }
            let before = match rules {
                Some(rules) => self.desired.services.insert(key.clone(), rules),
                None => self.desired.services.remove(key),
            };
            if let Some(before) = &before {
                self.sizes.remove(before);
            }
        }
        if listed {
            pack(&mut self.desired.services);
        }
        (dirty, fresh)
    }

    /// The Node object of this node, if it is there.
    pub fn own_node(&self) -> Option<&Node> {
        self.inputs.nodes.get(&self.settings.name)
    }

    /// What follows if it is not there, once everything has been listed: most often the name is not the API's.
    pub fn missing_node(&self) -> Option<String> {
        let name = &self.settings.name;
        self.own_node().is_none().then(|| {
            format!(
                "there is no Node {name}: its zone is unknown, and endpoints of this node are those with nodeName {name}; if the API \
                 knows this node by another name, give that as --hostname-override"
            )
        })
    }

    /// What was taken in so far.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The state derived so far.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }
}

/// Keeps one data plane in step with its inputs.
pub struct Reconciler<D> {
    deriver: Deriver,
    dataplane: D,
    health: Health,
    metrics: Metrics,
    conntrack: Option<Cleaner>,
    companion: Option<Arc<Companion>>,
    health_checks: Option<HealthChecks>,
    events: Option<Events>,
    /// Services whose rules the kernel does not have yet.
    pending: BTreeSet<ObjectKey>,
    /// Everything has to be compared: at start and after a failure.
    full: bool,
    failures: u32,
    /// The kernel has had everything once.
    served: bool,
}

/// Why the loop ended. It may be run again, and goes on where it was.
#[derive(Debug)]
pub enum Ended {
    /// The kernel has everything for the first time.
    FirstSync,
    /// Another mode is wanted; the kernel has everything.
    Switch(Order),
    /// Asked to.
    Shutdown,
    /// The source of inputs is gone, which it never should.
    SourceClosed,
}

impl<D: Dataplane> Reconciler<D> {
    pub fn new(settings: NodeSettings, dataplane: D, health: Health, metrics: Metrics) -> Self {
        Self {
            deriver: Deriver::new(settings),
            dataplane,
            health,
            metrics,
            conntrack: None,
            companion: None,
            health_checks: None,
            events: None,
            pending: BTreeSet::new(),
            full: true,
            failures: 0,
            served: false,
        }
    }

    /// Keeps the health check ports of Services in step as well.
    pub fn with_health_checks(self, health_checks: HealthChecks) -> Self {
        Self {
            health_checks: Some(health_checks),
            ..self
        }
    }

    /// Tells of findings about objects as Events, besides the log.
    pub fn with_events(self, events: Events) -> Self {
        Self {
            events: Some(events),
            ..self
        }
    }

    /// Frees the UDP clients that a change leaves bound to endpoints which are gone.
    pub fn with_conntrack(self, cleaner: Cleaner) -> Self {
        Self {
            conntrack: Some(cleaner),
            ..self
        }
    }

    /// Leaves to netfilter what the data plane does not carry.
    pub fn with_companion(self, companion: Arc<Companion>) -> Self {
        Self {
            companion: Some(companion),
            ..self
        }
    }

    /// The companion's work is another's from now on.
    pub fn leave_companion(&mut self) {
        self.companion = None;
    }

    /// The data plane, and what it has been told to bring about.
    pub fn parts(&mut self) -> (&mut D, &Desired) {
        (&mut self.dataplane, self.deriver.desired())
    }

    /// Goes on with a data plane that has brought about all that is desired, in place of this one, which has nothing in
    /// force any more. What was taken in, and what is told of it, stays.
    ///
    /// What this data plane can do is in `settings`, which may change what is told about objects, but not what is
    /// desired.
    pub fn replace<E: Dataplane>(
        mut self,
        settings: NodeSettings,
        dataplane: E,
        conntrack: Cleaner,
        companion: Option<Arc<Companion>>,
    ) -> Reconciler<E> {
        conntrack.programmed(self.deriver.desired(), &Change::Full);
        if let Some(companion) = &companion {
            companion.programmed(self.deriver.desired(), &Change::Full);
        }
        self.deriver.settle(settings);
        Reconciler {
            deriver: self.deriver,
            dataplane,
            health: self.health,
            metrics: self.metrics,
            conntrack: Some(conntrack),
            companion,
            health_checks: self.health_checks,
            events: self.events,
            pending: self.pending,
            full: false,
            failures: 0,
            served: self.served,
        }
    }

    /// Compares everything with the kernel before anything else.
    pub fn compare(&mut self) {
        self.full = true;
    }

    /// Runs until something is to be done that is not its business.
    pub async fn run(
        &mut self,
        events: &mut mpsc::Receiver<InputEvent>,
        orders: &mut mpsc::Receiver<Order>,
        shutdown: &CancellationToken,
    ) -> Ended {
        if self.served && !self.full {
            self.health.synced(SystemTime::now());
        }
        loop {
            if self.deriver.is_synced() && self.has_work() {
                if self.sync().await {
                    if !std::mem::replace(&mut self.served, true) {
                        if let Some(missing) = self.deriver.missing_node() {
                            tracing::warn!("{missing}");
                        }
                        return Ended::FirstSync;
                    }
                } else {
                    // Changes that arrive meanwhile wait in the channel: the next attempt takes them all.
                    tokio::select! {
                        () = shutdown.cancelled() => return Ended::Shutdown,
                        () = tokio::time::sleep(self.backoff()) => {}
                    }
                }
            }
            let failed = self.failures > 0;
            let in_sync = self.served && !self.full;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ended::Shutdown,
                event = events.recv() => match event {
                    Some(event) => self.take_in(event, events),
                    None => return Ended::SourceClosed,
                },
                Some(order) = orders.recv(), if in_sync => return Ended::Switch(order),
                // A data plane that has not been synced yet has nothing to look after.
                attention = self.dataplane.watch(), if !self.full => self.attend(attention),
                () = std::future::ready(()), if failed => {}
            }
        }
    }

    fn has_work(&self) -> bool {
        self.full || !self.pending.is_empty() || !self.deriver.dirty.is_empty()
    }

    /// Absorbs an event and all that wait behind it, so that a burst costs one sync.
    fn take_in(&mut self, first: InputEvent, events: &mut mpsc::Receiver<InputEvent>) {
        let mut next = Some(first);
        for room in (0..BATCH).rev() {
            let Some(event) = next else { break };
            let now = SystemTime::now();
            let seen = Seen::of(&event);
            let is_node = matches!(event, InputEvent::Node(..));
            let listing = !self.deriver.is_synced();
            let changed = self.deriver.absorb(event);
            if listing && self.deriver.is_synced() {
                self.metrics.listed(now);
            }
            self.metrics.took_in(seen, changed, now);
            if changed {
                self.health.waiting(now);
            }
            if is_node {
                let draining = self.deriver.own_node().is_some_and(|node| node.draining);
                self.health.draining(draining);
            }
            // What is taken out of the channel is taken in: behind the last of a batch it stays where it is.
            next = (room > 0).then(|| events.try_recv().ok()).flatten();
        }
    }

    fn attend(&mut self, attention: Result<String, ApplyError>) {
        match attention {
            Ok(reason) => {
                self.metrics.foreign_changes.inc();
                tracing::warn!(%reason, "comparing everything with the kernel");
            }
            Err(error) => tracing::warn!(%error, "cannot follow the kernel; comparing everything"),
        }
        self.full = true;
        self.health.waiting(SystemTime::now());
    }

    /// One round of derive, plan, apply. Returns whether the kernel now has everything.
    async fn sync(&mut self) -> bool {
        let started = Instant::now();
        let (touched, diagnostics) = self.deriver.derive();
        for d in &diagnostics {
            tracing::warn!(object = %d.object, field = %d.field, consequence = %d.consequence, "cannot use a field");
            if let Some(events) = &self.events {
                events.diagnosed(d);
            }
        }
        self.pending.extend(touched);
        match self.program().await {
            Ok(report) => {
                self.metrics
                    .synced(started.elapsed(), &report, self.full, SystemTime::now());
                self.note_sizes();
                self.tell(&report, started.elapsed());
                self.move_health_checks();
                self.pending.clear();
                if self.full {
                    seaway_daemon::release_memory();
                }
                self.full = false;
                self.failures = 0;
                // The first time somebody else has a word to say: whoever calls `run` again has said it.
                if self.served {
                    self.health.synced(SystemTime::now());
                }
                true
            }
            Err(error) => {
                self.metrics.failed(self.full, &error);
                self.failures += 1;
                self.full = true;
                tracing::error!(%error, retry_in_ms = self.backoff().as_millis(), "sync failed");
                false
            }
        }
    }

    async fn program(&mut self) -> Result<Report, ApplyError> {
        let change = if self.full {
            self.metrics.full_syncs.inc();
            self.dataplane.observe().await?;
            self.dataplane.rehearse().await?;
            Change::Full
        } else {
            Change::Services(self.pending.clone())
        };
        let plan = self.dataplane.plan(self.deriver.desired(), &change);
        let report = self.dataplane.apply(plan).await?;
        // New flows find the new rules by now; what follows is about the old ones.
        if let Some(conntrack) = &self.conntrack {
            conntrack.programmed(self.deriver.desired(), &change);
        }
        if let Some(companion) = &self.companion {
            companion.programmed(self.deriver.desired(), &change);
        }
        Ok(report)
    }

    /// A full sync is worth a line; single changes are many, and counted in the metrics.
    fn tell(&self, report: &Report, took: Duration) {
        let Report {
            operations,
            deletions,
            ..
        } = *report;
        let ms = took.as_millis();
        if self.full {
            let services = self.deriver.desired.services.len();
            tracing::info!(services, operations, deletions, ms, "everything programmed");
        } else {
            let services = self.pending.len();
            tracing::debug!(services, operations, deletions, ms, "change programmed");
        }
    }

    fn backoff(&self) -> Duration {
        RETRY_FIRST
            .saturating_mul(1 << self.failures.saturating_sub(1).min(10))
            .min(RETRY_MAX)
    }

    fn note_sizes(&self) {
        for (gauge, size) in [
            (&self.metrics.services, self.deriver.desired.services.len()),
            (&self.metrics.backends, self.deriver.sizes.backends()),
            (&self.metrics.diagnostics, self.deriver.diagnostics.len()),
        ] {
            gauge.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        for (family, internal, external) in self.deriver.sizes.without_local_endpoints() {
            let kube_proxy = &self.metrics.kube_proxy;
            kube_proxy.without_local_endpoints(family, internal, external);
        }
    }

    /// A load balancer may send here only what the kernel can serve, so this comes after the kernel.
    fn move_health_checks(&self) {
        let Some(health_checks) = &self.health_checks else {
            return;
        };
        let services = &self.deriver.desired.services;
        for key in &self.pending {
            let check = services.get(key).and_then(|rules| rules.health_check);
            health_checks.set(key, check);
        }
    }
}

#[cfg(test)]
mod tests;
