//! Metrics of the reconcile loop. What kube-proxy has keeps kube-proxy's name, labels and meaning
//! (`pkg/proxy/metrics/metrics.go`); families are synced together here, so that both labels show the same sync.

mod datapath;
mod kube_proxy;
mod process;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Labelled;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use seaway_model::{Family, InputEvent};

use crate::dataplane::{ApplyError, Report};
pub use datapath::Datapath;
pub use kube_proxy::KubeProxyMetrics;

/// Handles to the metrics; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Those that kube-proxy has as well.
    pub kube_proxy: KubeProxyMetrics,
    pub sync_failures: Counter,
    pub full_syncs: Counter,
    pub operations: Counter,
    pub deletions: Counter,
    pub services: Gauge,
    pub backends: Gauge,
    pub diagnostics: Gauge,
    /// From the start of the process until every input had been listed once; 0 until then.
    lists: Gauge<f64, AtomicU64>,
    pub events_dropped: Counter,
    pub health_check_failures: Counter,
    pub corrections: Counter,
    pub foreign_changes: Counter,
    pub lock_wait: Counter<f64, AtomicU64>,
    /// 1 for the variant of iptables that keeps a table.
    places: Labelled<[(&'static str, &'static str); 2], Gauge>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Changes that the kernel does not have yet.
#[derive(Debug)]
struct Waiting {
    /// When the change of each slice happened in the cluster.
    triggers: Vec<(Family, SystemTime)>,
    started: SystemTime,
}

/// What the metrics need to know of an event, taken before the event itself is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Service,
    Slice(Option<(Family, SystemTime)>),
    Other,
}

impl Seen {
    pub fn of(event: &InputEvent) -> Self {
        match event {
            InputEvent::Service(..) => Self::Service,
            // A removed slice says nothing about when.
            InputEvent::Slice(_, slice) => Self::Slice(
                slice
                    .as_ref()
                    .and_then(|slice| Some((slice.family, slice.last_change?))),
            ),
            _ => Self::Other,
        }
    }
}

impl Metrics {
    /// Creates the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            kube_proxy: KubeProxyMetrics::new(registry),
            sync_failures: Counter::default(),
            full_syncs: Counter::default(),
            operations: Counter::default(),
            deletions: Counter::default(),
            services: Gauge::default(),
            backends: Gauge::default(),
            diagnostics: Gauge::default(),
            lists: Gauge::default(),
            events_dropped: Counter::default(),
            health_check_failures: Counter::default(),
            corrections: Counter::default(),
            foreign_changes: Counter::default(),
            lock_wait: Counter::default(),
            places: Labelled::default(),
            waiting: Arc::new(Mutex::new(Waiting {
                triggers: Vec::new(),
                started: SystemTime::now(),
            })),
        };
        registry.register_collector(Box::new(process::Process));
        let ours = registry.sub_registry_with_prefix("seaway_proxy");
        ours.register(
            "build",
            "Version of this program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        for (name, help, counter) in [
            (
                "sync_failures",
                "Syncs that failed and were retried",
                &metrics.sync_failures,
            ),
            (
                "full_syncs",
                "Syncs that compared everything",
                &metrics.full_syncs,
            ),
            (
                "kernel_operations",
                "Rules written and map entries changed",
                &metrics.operations,
            ),
            (
                "kernel_deletions",
                "Rules and map entries deleted",
                &metrics.deletions,
            ),
            (
                "events_dropped",
                "Events about objects that were not recorded: too many, or the API did not take them",
                &metrics.events_dropped,
            ),
            (
                "health_check_port_failures",
                "Health check ports of Services that could not be listened on",
                &metrics.health_check_failures,
            ),
            (
                "foreign_changes",
                "Times that somebody else had changed what is ours in the kernel",
                &metrics.foreign_changes,
            ),
            (
                "corrections",
                "Partial syncs that would not have ended where a full one does, and were replaced by one",
                &metrics.corrections,
            ),
        ] {
            ours.register(name, help, counter.clone());
        }
        ours.register_with_unit(
            "lock_wait",
            "Time spent waiting for the lock of iptables while others held it",
            Unit::Seconds,
            metrics.lock_wait.clone(),
        );
        ours.register_with_unit(
            "lists_complete",
            "Time from the start of this process until everything had been listed once",
            Unit::Seconds,
            metrics.lists.clone(),
        );
        ours.register(
            "iptables_table",
            "Which variant of iptables keeps our rules of a table",
            metrics.places.clone(),
        );
        for (name, help, gauge) in [
            ("services", "Services programmed", &metrics.services),
            (
                "backends",
                "Backends of all ports of all Services",
                &metrics.backends,
            ),
            (
                "diagnostics",
                "Objects with a field that cannot be used as written",
                &metrics.diagnostics,
            ),
        ] {
            ours.register(name, help, gauge.clone());
        }
        metrics
    }

    /// An event has been taken in; `changed` if the kernel has to follow.
    pub fn took_in(&self, seen: Seen, changed: bool, now: SystemTime) {
        let kube_proxy = &self.kube_proxy;
        let (total, pending) = match seen {
            Seen::Service => (
                &kube_proxy.service_changes,
                &kube_proxy.service_changes_pending,
            ),
            Seen::Slice(_) => (
                &kube_proxy.endpoint_changes,
                &kube_proxy.endpoint_changes_pending,
            ),
            Seen::Other => return,
        };
        total.inc();
        if !changed {
            return;
        }
        pending.inc();
        kube_proxy.queued(now);
        if let Seen::Slice(Some(trigger)) = seen {
            let mut waiting = self.waiting();
            // What happened before we were there was not ours to program.
            if trigger.1 >= waiting.started {
                waiting.triggers.push(trigger);
            }
        }
    }

    /// Every input has been listed once.
    pub fn listed(&self, now: SystemTime) {
        let since = now.duration_since(self.waiting().started);
        self.lists.set(since.unwrap_or_default().as_secs_f64());
    }

    /// Records a sync that succeeded. `took` covers derive, plan and apply.
    pub fn synced(&self, took: Duration, report: &Report, full: bool, now: SystemTime) {
        self.operations.inc_by(report.operations as u64);
        self.deletions.inc_by(report.deletions as u64);
        self.corrections.inc_by(report.corrections as u64);
        self.lock_wait.inc_by(report.lock_wait.as_secs_f64());
        for (family, table, rules) in &report.rules {
            self.kube_proxy.iptables_rules(*family, table, *rules);
        }
        if full {
            self.places.clear();
            for (table, variant) in &report.places {
                let labels = [("table", *table), ("variant", *variant)];
                self.places.get_or_create(&labels).set(1);
            }
        }
        self.kube_proxy.synced(took, full, now);
        for (family, trigger) in std::mem::take(&mut self.waiting().triggers) {
            // Clocks of two machines: a change from the future took no time.
            let latency = now.duration_since(trigger).unwrap_or_default();
            self.kube_proxy.network_programmed(family, latency);
        }
    }

    /// Records a sync that failed; everything is still waiting.
    pub fn failed(&self, full: bool, error: &ApplyError) {
        self.sync_failures.inc();
        if let ApplyError::Refused { family, .. } = error {
            self.kube_proxy.restore_failed(*family, full);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A metric per IP family.
type PerFamily<M> = Labelled<[(&'static str, &'static str); 1], M>;

/// The text exposition of everything registered.
pub fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail; an empty answer would only say that nothing was registered.
    let _infallible = encode(&mut text, registry);
    text
}
