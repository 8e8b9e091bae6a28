use seaway_model::{EndpointSlice, ObjectKey};

use super::*;

fn slice(last_change: SystemTime) -> InputEvent {
    let key = ObjectKey::new("default", "web-1");
    let slice = EndpointSlice {
        key: key.clone(),
        service: ObjectKey::new("default", "web"),
        family: Family::V6,
        ports: Vec::new(),
        endpoints: Vec::new(),
        last_change: Some(last_change),
    };
    InputEvent::Slice(key, Some(slice))
}

fn has(registry: &Registry, lines: &[&str]) {
    let text = exposition(registry);
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} not in\n{text}");
    }
}

fn refused() -> ApplyError {
    ApplyError::Refused {
        family: Family::V4,
        what: "iptables-nft-restore".into(),
        reason: "line 2 failed".into(),
    }
}

#[test]
fn names_and_labels_are_kube_proxys() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let report = Report {
        operations: 2,
        lock_wait: Duration::from_millis(500),
        rules: vec![(Family::V4, "nat", 7)],
        ..Report::default()
    };
    metrics.took_in(Seen::Service, true, at(4));
    has(
        &registry,
        &[
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv6\"} 4.0",
        ],
    );
    metrics.synced(Duration::from_millis(3), &report, false, at(5));
    metrics.failed(false, &refused());
    metrics.kube_proxy.without_local_endpoints(Family::V4, 1, 2);
    metrics.kube_proxy.healthz_answered(false);
    metrics.kube_proxy.livez_answered(true);
    has(
        &registry,
        &[
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 5.0",
            "kubeproxy_sync_proxy_rules_service_changes_total 1",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_iptables_total{ip_family=\"IPv4\",table=\"nat\"} 7",
            "kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv6\"} 0",
            "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 1",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 2",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "kubeproxy_proxy_livez_total{code=\"200\"} 1",
            "seaway_proxy_kernel_operations_total 2",
            "seaway_proxy_lock_wait_seconds_total 0.5",
            "seaway_proxy_corrections_total 0",
            "seaway_proxy_sync_failures_total 1",
        ],
    );
    let text = exposition(&registry);
    assert!(text.contains("process_resident_memory_bytes "), "{text}");
    assert!(text.contains("process_cpu_seconds_total "), "{text}");
}

#[test]
fn network_programming_is_measured_from_the_annotation_once_the_kernel_follows() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let started = metrics.waiting().started;
    let took_in = |seconds: u64, changed| {
        let event = slice(started + Duration::from_secs(seconds));
        metrics.took_in(Seen::of(&event), changed, started);
    };
    // From before the start, and one that changes nothing: neither is ours.
    let old = slice(started - Duration::from_secs(1));
    metrics.took_in(Seen::of(&old), true, started);
    took_in(1, false);
    took_in(2, true);
    metrics.failed(true, &refused());
    let synced = |seconds| {
        let now = started + Duration::from_secs(seconds);
        metrics.synced(Duration::ZERO, &Report::default(), true, now);
    };
    synced(5);
    synced(9);
    has(
        &registry,
        &[
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_network_programming_duration_seconds_sum{ip_family=\"IPv6\"} 3.0",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"3.0\",ip_family=\"IPv6\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"2.0\",ip_family=\"IPv6\"} 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 3",
        ],
    );
}
