//! The metrics that kube-proxy has; those of connection tracking are with its clean-up.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Labelled;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use seaway_model::Family;

use super::PerFamily;
use crate::health::family_name;

type Seconds = Gauge<f64, AtomicU64>;
type Pair = [(&'static str, &'static str); 2];

/// Handles; cloning shares them.
#[derive(Debug, Clone)]
pub struct KubeProxyMetrics {
    pub service_changes: Counter,
    pub service_changes_pending: Gauge,
    pub endpoint_changes: Counter,
    pub endpoint_changes_pending: Gauge,
    sync_duration: PerFamily<Histogram>,
    full_duration: PerFamily<Histogram>,
    partial_duration: PerFamily<Histogram>,
    last_synced: PerFamily<Seconds>,
    last_queued: PerFamily<Seconds>,
    network_programming: PerFamily<Histogram>,
    restore_failures: PerFamily<Counter>,
    partial_restore_failures: PerFamily<Counter>,
    iptables_rules: Labelled<Pair, Gauge>,
    no_local_endpoints: Labelled<Pair, Gauge>,
    healthz: PerFamily<Counter>,
    livez: PerFamily<Counter>,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn label(family: Family) -> [(&'static str, &'static str); 1] {
    [("ip_family", family_name(family))]
}

/// 1 ms doubling up to 16 s.
fn sync_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// Quarters of a second, seconds up to a minute, then ever longer steps up to five minutes.
fn latency_buckets() -> Histogram {
    let fine = [0.25, 0.5];
    let seconds = (1..=59).map(f64::from);
    let fives = (0..12).map(|i| 60.0 + 5.0 * f64::from(i));
    let halves = (0..7).map(|i| 120.0 + 30.0 * f64::from(i));
    Histogram::new(fine.into_iter().chain(seconds).chain(fives).chain(halves))
}

impl KubeProxyMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            service_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            endpoint_changes: Counter::default(),
            endpoint_changes_pending: Gauge::default(),
            sync_duration: PerFamily::new_with_constructor(sync_buckets),
            full_duration: PerFamily::new_with_constructor(sync_buckets),
            partial_duration: PerFamily::new_with_constructor(sync_buckets),
            last_synced: PerFamily::default(),
            last_queued: PerFamily::default(),
            network_programming: PerFamily::new_with_constructor(latency_buckets),
            restore_failures: PerFamily::default(),
            partial_restore_failures: PerFamily::default(),
            iptables_rules: Labelled::default(),
            no_local_endpoints: Labelled::default(),
            healthz: PerFamily::default(),
            livez: PerFamily::default(),
        };
        let top = registry.sub_registry_with_prefix("kubeproxy");
        metrics.register(top);
        // A series that is there from the start can be alerted on.
        for family in FAMILIES {
            let labels = label(family);
            drop(metrics.restore_failures.get_or_create(&labels));
            drop(metrics.partial_restore_failures.get_or_create(&labels));
            metrics.without_local_endpoints(family, 0, 0);
        }
        metrics
    }

    fn register(&self, top: &mut Registry) {
        seconds(
            top,
            "sync_proxy_rules_duration",
            "Time to bring the kernel up to date with one batch of changes",
            &self.sync_duration,
        );
        seconds(
            top,
            "sync_full_proxy_rules_duration",
            "The same, of syncs that compared everything",
            &self.full_duration,
        );
        seconds(
            top,
            "sync_partial_proxy_rules_duration",
            "The same, of syncs that looked at changed Services only",
            &self.partial_duration,
        );
        seconds(
            top,
            "sync_proxy_rules_last_timestamp",
            "Time of the last complete sync",
            &self.last_synced,
        );
        seconds(
            top,
            "sync_proxy_rules_last_queued_timestamp",
            "When the last change arrived that the kernel had to follow",
            &self.last_queued,
        );
        seconds(
            top,
            "network_programming_duration",
            "From the change in the cluster, as the EndpointSlice says it, to the sync that followed",
            &self.network_programming,
        );
        top.register(
            "sync_proxy_rules_service_changes",
            "Changes of Services taken in",
            self.service_changes.clone(),
        );
        top.register(
            "sync_proxy_rules_service_changes_pending",
            "Changes of Services that the kernel does not have yet",
            self.service_changes_pending.clone(),
        );
        top.register(
            "sync_proxy_rules_endpoint_changes",
            "Changes of EndpointSlices taken in",
            self.endpoint_changes.clone(),
        );
        top.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Changes of EndpointSlices that the kernel does not have yet",
            self.endpoint_changes_pending.clone(),
        );
        top.register(
            "sync_proxy_rules_iptables_restore_failures",
            "Runs of iptables-restore that failed",
            self.restore_failures.clone(),
        );
        top.register(
            "sync_proxy_rules_iptables_partial_restore_failures",
            "Runs of iptables-restore with changed chains only that failed",
            self.partial_restore_failures.clone(),
        );
        // A gauge with the name of a counter, as in kube-proxy.
        top.register(
            "sync_proxy_rules_iptables_total",
            "iptables rules of ours",
            self.iptables_rules.clone(),
        );
        top.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports with traffic policy Local that have endpoints, but none on this node",
            self.no_local_endpoints.clone(),
        );
        top.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        top.register("proxy_livez", "Answers of /livez", self.livez.clone());
    }

    pub(super) fn queued(&self, now: SystemTime) {
        for family in FAMILIES {
            set_time(&self.last_queued, family, now);
        }
    }

    pub(super) fn synced(&self, took: Duration, full: bool, now: SystemTime) {
        let one = if full {
            &self.full_duration
        } else {
            &self.partial_duration
        };
        for family in FAMILIES {
            for histogram in [&self.sync_duration, one] {
                histogram
                    .get_or_create(&label(family))
                    .observe(took.as_secs_f64());
            }
            set_time(&self.last_synced, family, now);
        }
        self.service_changes_pending.set(0);
        self.endpoint_changes_pending.set(0);
    }

    pub(super) fn network_programmed(&self, family: Family, latency: Duration) {
        self.network_programming
            .get_or_create(&label(family))
            .observe(latency.as_secs_f64());
    }

    /// Families are restored one after the other: a failure of one stops the sync of both.
    pub(super) fn restore_failed(&self, family: Family, full: bool) {
        let labels = label(family);
        self.restore_failures.get_or_create(&labels).inc();
        if !full {
            self.partial_restore_failures.get_or_create(&labels).inc();
        }
    }

    /// How many rules of ours a table has.
    pub fn iptables_rules(&self, family: Family, table: &'static str, rules: usize) {
        let labels = [("ip_family", family_name(family)), ("table", table)];
        let rules = i64::try_from(rules).unwrap_or(i64::MAX);
        self.iptables_rules.get_or_create(&labels).set(rules);
    }

    /// Service ports whose internal and external traffic policy finds no endpoint on this node.
    pub fn without_local_endpoints(&self, family: Family, internal: usize, external: usize) {
        for (policy, ports) in [("internal", internal), ("external", external)] {
            let labels = [
                ("ip_family", family_name(family)),
                ("traffic_policy", policy),
            ];
            let ports = i64::try_from(ports).unwrap_or(i64::MAX);
            self.no_local_endpoints.get_or_create(&labels).set(ports);
        }
    }

    pub fn healthz_answered(&self, ok: bool) {
        self.healthz.get_or_create(&code(ok)).inc();
    }

    pub fn livez_answered(&self, ok: bool) {
        self.livez.get_or_create(&code(ok)).inc();
    }
}

fn code(ok: bool) -> [(&'static str, &'static str); 1] {
    [("code", if ok { "200" } else { "503" })]
}

fn seconds(top: &mut Registry, name: &str, help: &str, metric: &(impl Metric + Clone)) {
    top.register_with_unit(name, help, Unit::Seconds, metric.clone());
}

fn set_time(gauge: &PerFamily<Seconds>, family: Family, time: SystemTime) {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    gauge.get_or_create(&label(family)).set(since.as_secs_f64());
}
