//! What is in force, as the `KubeProxyConfiguration` that would bring it about (`/configz`).

use std::time::Duration;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::file::{API_VERSION, KIND};
use super::{Config, LocalMode, LocalTraffic, NodePortAddresses, RunConfig};

/// The name by which kube-proxy's `/configz` shows its configuration.
const GROUP: &str = "kubeproxy.config.k8s.io";

/// The answer of `/configz`. What has no field in such a file (`--external-ip-cidrs`, `--manifests`) is not in it.
pub(super) fn configz(config: &Config, run: &RunConfig) -> Value {
    let (mode, cidrs, bridge, prefix) = local_traffic(&config.local_traffic);
    json!({ GROUP: {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "mode": config.mode.as_str(),
        "clientConnection": {"kubeconfig": config.kubeconfig},
        "hostnameOverride": config.node_name,
        "healthzBindAddress": run.healthz.to_string(),
        "metricsBindAddress": run.metrics.to_string(),
        "iptables": {"masqueradeAll": config.masquerade_all},
        "detectLocalMode": mode.name(),
        "detectLocal": {"bridgeInterface": bridge, "interfaceNamePrefix": prefix},
        "clusterCIDR": join(cidrs),
        "nodePortAddresses": node_ports(&config.node_port_addresses),
        "oomScoreAdj": run.oom_score_adj,
        "conntrack": {
            "maxPerCore": run.conntrack.max_per_core,
            "min": run.conntrack.min,
            "tcpEstablishedTimeout": span(run.conntrack.tcp_established),
            "tcpCloseWaitTimeout": span(run.conntrack.tcp_close_wait),
            "tcpBeLiberal": run.conntrack.tcp_be_liberal,
            "udpTimeout": span(run.conntrack.udp),
            "udpStreamTimeout": span(run.conntrack.udp_stream),
        },
    }})
}

/// The fields in which two answers differ, but the mode.
pub(super) fn differences(one: &Value, other: &Value) -> Vec<String> {
    let fields = |value: &Value| value[GROUP].as_object().cloned().unwrap_or_default();
    let (one, other) = (fields(one), fields(other));
    one.iter()
        .filter(|(name, value)| *name != "mode" && other.get(*name) != Some(*value))
        .map(|(name, _)| name.clone())
        .collect()
}

fn local_traffic(traffic: &LocalTraffic) -> (LocalMode, &[IpNetwork], &str, &str) {
    match traffic {
        LocalTraffic::ClusterCidrs(cidrs) => (LocalMode::ClusterCidr, cidrs, "", ""),
        LocalTraffic::NodeCidrs => (LocalMode::NodeCidr, &[], "", ""),
        LocalTraffic::Bridge(name) => (LocalMode::BridgeInterface, &[], name, ""),
        LocalTraffic::InterfacePrefix(prefix) => (LocalMode::InterfaceNamePrefix, &[], "", prefix),
    }
}

fn join(cidrs: &[IpNetwork]) -> String {
    let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn node_ports(addresses: &NodePortAddresses) -> Vec<String> {
    match addresses {
        NodePortAddresses::All => Vec::new(),
        NodePortAddresses::Some { primary, cidrs } => {
            let primary = primary.then(|| "primary".to_owned()).into_iter();
            primary
                .chain(cidrs.iter().map(ToString::to_string))
                .collect()
        }
    }
}

fn span(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
