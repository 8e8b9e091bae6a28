//! Metrics of the clean-up, with kube-proxy's names where it has them.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use seaway_kernel::conntrack;

/// `ip_family`, as in kube-proxy's metrics.
type Labels = [(&'static str, &'static str); 1];

/// Handles to the metrics; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    duration: Family<Labels, Histogram, fn() -> Histogram>,
    deleted: Family<Labels, Counter>,
    pub(super) failures: Counter,
}

impl Metrics {
    /// Creates the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            // 1 ms doubling up to 16 s, as kube-proxy's.
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 15))
            }),
            deleted: Family::default(),
            failures: Counter::default(),
        };
        let kube_proxy = registry.sub_registry_with_prefix("kubeproxy_conntrack_reconciler");
        kube_proxy.register_with_unit(
            "sync_duration",
            "Time to find and delete stale connection tracking entries after a change",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        kube_proxy.register(
            "deleted_entries",
            "Stale connection tracking entries deleted",
            metrics.deleted.clone(),
        );
        registry
            .sub_registry_with_prefix("seaway_proxy_conntrack")
            .register(
                "failures",
                "Attempts to delete stale connection tracking entries that failed and are repeated",
                metrics.failures.clone(),
            );
        metrics
    }

    pub(super) fn cleaned(&self, family: conntrack::Family, deleted: u64, took: Duration) {
        let labels = labels(family);
        let duration = self.duration.get_or_create(&labels);
        duration.observe(took.as_secs_f64());
        self.deleted.get_or_create(&labels).inc_by(deleted);
    }

    /// Entries deleted so far.
    #[cfg(test)]
    pub(super) fn deleted(&self, family: conntrack::Family) -> u64 {
        self.deleted.get_or_create(&labels(family)).get()
    }
}

fn labels(family: conntrack::Family) -> Labels {
    let family = match family {
        conntrack::Family::V4 => "IPv4",
        conntrack::Family::V6 => "IPv6",
    };
    [("ip_family", family)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition;

    #[test]
    fn names_are_kube_proxys() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.cleaned(conntrack::Family::V4, 3, Duration::from_millis(2));
        metrics.failures.inc();
        assert_eq!(metrics.deleted(conntrack::Family::V4), 3);
        let text = exposition(&registry);
        for line in [
            r#"kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv4"} 1"#,
            r#"kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 3"#,
            "seaway_proxy_conntrack_failures_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }
}
