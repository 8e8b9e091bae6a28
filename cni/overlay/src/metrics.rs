//! Metrics of the mesh.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Handles to the metrics; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub syncs: Counter,
    pub listings: Counter,
    pub failures: Counter,
    pub operations: Counter,
    pub peers: Gauge,
    pub problems: Gauge,
    pub mtu: Gauge,
    pub strangers: Gauge,
    pub duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            syncs: Counter::default(),
            listings: Counter::default(),
            failures: Counter::default(),
            operations: Counter::default(),
            peers: Gauge::default(),
            problems: Gauge::default(),
            mtu: Gauge::default(),
            strangers: Gauge::default(),
            // From half a millisecond to two seconds.
            duration: Histogram::new(exponential_buckets(0.0005, 2.0, 13)),
        }
    }
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let ours = registry.sub_registry_with_prefix("seaway_overlay");
        let text = "Comparisons of the kernel with the mesh";
        ours.register("syncs", text, self.syncs.clone());
        let text = "Comparisons that listed all that is in the kernel";
        ours.register("listings", text, self.listings.clone());
        let text = "Comparisons after which something was still not as wanted";
        ours.register("sync_failures", text, self.failures.clone());
        let text = "Changes made in the kernel";
        ours.register("kernel_operations", text, self.operations.clone());
        let text = "Nodes that this one exchanges pod traffic with";
        ours.register("peers", text, self.peers.clone());
        let text = "Nodes left out of the mesh";
        ours.register("problems", text, self.problems.clone());
        let text = "MTU of the overlay and of pods";
        ours.register_with_unit("mtu", text, Unit::Bytes, self.mtu.clone());
        let text =
            "VXLAN packets from addresses of nobody that were dropped, since the table was made";
        ours.register("strangers", text, self.strangers.clone());
        let text = "What a comparison and its changes took";
        ours.register_with_unit("sync", text, Unit::Seconds, self.duration.clone());
    }
}

/// The text exposition of everything registered.
pub fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pinned() {
        let mut registry = Registry::default();
        Metrics::default().register(&mut registry);
        let text = exposition(&registry);
        let types: Vec<_> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .collect();
        assert_eq!(
            types,
            [
                "seaway_overlay_syncs counter",
                "seaway_overlay_listings counter",
                "seaway_overlay_sync_failures counter",
                "seaway_overlay_kernel_operations counter",
                "seaway_overlay_peers gauge",
                "seaway_overlay_problems gauge",
                "seaway_overlay_mtu_bytes gauge",
                "seaway_overlay_strangers gauge",
                "seaway_overlay_sync_seconds histogram",
            ]
        );
    }
}
