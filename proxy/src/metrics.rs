//! Metrics of the reconcile loop. Names that kube-proxy has keep kube-proxy's name and meaning.

use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::dataplane::Report;

/// Handles to the metrics; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub sync_duration: Histogram,
    pub sync_failures: Counter,
    pub full_syncs: Counter,
    pub last_sync: Gauge,
    pub service_changes: Counter,
    pub endpoint_changes: Counter,
    pub operations: Counter,
    pub deletions: Counter,
    pub services: Gauge,
    pub backends: Gauge,
    pub diagnostics: Gauge,
}

impl Metrics {
    /// Creates the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            // 1 ms doubling up to 16 s, as kube-proxy's.
            sync_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            sync_failures: Counter::default(),
            full_syncs: Counter::default(),
            last_sync: Gauge::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            operations: Counter::default(),
            deletions: Counter::default(),
            services: Gauge::default(),
            backends: Gauge::default(),
            diagnostics: Gauge::default(),
        };
        let kube_proxy = registry.sub_registry_with_prefix("kubeproxy_sync_proxy_rules");
        kube_proxy.register_with_unit(
            "duration",
            "Time to bring the kernel up to date with one batch of changes",
            Unit::Seconds,
            metrics.sync_duration.clone(),
        );
        kube_proxy.register_with_unit(
            "last_timestamp",
            "Time of the last complete sync",
            Unit::Seconds,
            metrics.last_sync.clone(),
        );
        kube_proxy.register(
            "service_changes",
            "Changes of Services taken in",
            metrics.service_changes.clone(),
        );
        kube_proxy.register(
            "endpoint_changes",
            "Changes of EndpointSlices taken in",
            metrics.endpoint_changes.clone(),
        );
        let ours = registry.sub_registry_with_prefix("seaway_proxy");
        ours.register(
            "sync_failures",
            "Syncs that failed and were retried",
            metrics.sync_failures.clone(),
        );
        ours.register(
            "full_syncs",
            "Syncs that compared everything",
            metrics.full_syncs.clone(),
        );
        ours.register(
            "kernel_operations",
            "Rules written and map entries changed",
            metrics.operations.clone(),
        );
        ours.register(
            "kernel_deletions",
            "Rules and map entries deleted",
            metrics.deletions.clone(),
        );
        ours.register("services", "Services programmed", metrics.services.clone());
        ours.register(
            "backends",
            "Backends of all ports of all Services",
            metrics.backends.clone(),
        );
        ours.register(
            "diagnostics",
            "Objects with a field that cannot be used as written",
            metrics.diagnostics.clone(),
        );
        metrics
    }

    /// Records a sync that succeeded. `took` covers derive, plan and apply.
    pub fn synced(&self, took: Duration, report: &Report, now: SystemTime) {
        self.sync_duration.observe(took.as_secs_f64());
        self.operations.inc_by(report.operations as u64);
        self.deletions.inc_by(report.deletions as u64);
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.last_sync
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

/// The text exposition of everything registered.
pub fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail; an empty answer would only say that nothing was registered.
    let _infallible = encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_are_pinned() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.synced(
            Duration::from_millis(3),
            &Report {
                operations: 2,
                ..Report::default()
            },
            SystemTime::UNIX_EPOCH + Duration::from_secs(5),
        );
        let text = exposition(&registry);
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds 5",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "seaway_proxy_kernel_operations_total 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }
}
