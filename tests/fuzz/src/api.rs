//! API objects as chance makes them: the fields that forwarding reads, with values that objects have, and others.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::Serialize;

/// Text that is mostly one of a few, so that objects meet, and sometimes anything.
macro_rules! pool {
    ($(#[$about:meta])* $name:ident: $($text:literal),+ $(,)?) => {
        $(#[$about])*
        #[derive(Debug, Clone, Serialize)]
        pub(crate) struct $name(String);

        impl Arbitrary<'_> for $name {
            fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
                let known = [$($text),+];
                // The last numbers of the byte stand for anything.
                let index = usize::from(u.arbitrary::<u8>()?);
                Ok(Self(if index < 240 {
                    known[index % known.len()].to_owned()
                } else {
                    u.arbitrary()?
                }))
            }
        }
    };
}

pool!(Name: "web", "db", "n1", "n2", "a", "b", "", "http", "web-1", "Web", "a.b", "x\ny");
pool!(Namespace: "default", "prod", "");
pool!(Address: "10.96.0.1", "10.96.0.17", "10.96.0.33", "fd00:10:96::1", "fd00:10:96::11", "None", "", "203.0.113.1",
    "2001:db8:1::1", "10.244.1.2", "10.244.2.2", "10.244.1.3", "fd00:10:244:1::2", "192.168.100.1", "fd00:192::1",
    "127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "010.096.0.001", "::ffff:10.96.0.1", "198.51.100.9");
pool!(Cidr: "10.244.1.0/24", "0.0.0.0/0", "::/0", "192.0.2.0/24", " 192.0.2.7/32 ", "2001:db8::/64", "10.0.0.0/33",
    "fd00:10:244:1::/64", "192.168.100.0/24", "x", "x.", "x:");
pool!(Protocol: "TCP", "UDP", "SCTP", "", "tcp");
pool!(ServiceType: "ClusterIP", "NodePort", "LoadBalancer", "ExternalName");
pool!(Policy: "Cluster", "Local", "", "local");
pool!(Affinity: "ClientIP", "None", "");
pool!(IpMode: "VIP", "Proxy");
pool!(AddressType: "IPv4", "IPv6", "FQDN");
pool!(NodeAddressType: "InternalIP", "ExternalIP");
pool!(TaintKey: "ToBeDeletedByClusterAutoscaler", "other");
pool!(Time: "2026-01-01T00:00:00Z", "yesterday");

/// When somebody began to delete the object; an API server stores no other text here.
#[derive(Debug, Clone, Serialize, Arbitrary)]
enum Deleted {
    #[serde(rename = "2026-01-01T00:00:00Z")]
    Once,
}

/// A number of a field that holds a port, a time or whatever an `int32` may hold.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Number(i64);

impl Arbitrary<'_> for Number {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let known = [
            80, 53, 8080, 30_080, 30_081, 65_535, 0, 65_536, -1, 86_400, 86_401,
        ];
        let index = usize::from(u.arbitrary::<u8>()?);
        Ok(Self(match known.get(index % 16) {
            Some(known) => *known,
            None => u.arbitrary()?,
        }))
    }
}

/// A label that makes an object none of ours where it is there.
#[derive(Debug, Clone, Serialize)]
struct Rare(&'static str);

impl Rare {
    fn is_missing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Arbitrary<'_> for Rare {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self(if u.ratio(1_u8, 16)? { "x" } else { "" }))
    }
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Service {
    pub(crate) metadata: Metadata,
    spec: ServiceSpec,
    status: Option<ServiceStatus>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: Name,
    pub(crate) namespace: Namespace,
    labels: Labels,
    annotations: Option<Annotations>,
    deletion_timestamp: Option<Deleted>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: Name,
    #[serde(
        rename = "service.kubernetes.io/headless",
        skip_serializing_if = "Rare::is_missing"
    )]
    headless: Rare,
    #[serde(
        rename = "service.kubernetes.io/service-proxy-name",
        skip_serializing_if = "Rare::is_missing"
    )]
    other_proxy: Rare,
    #[serde(rename = "topology.kubernetes.io/zone")]
    zone: Name,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    last_change: Option<Time>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<ServiceType>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<Address>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<Address>>,
    ports: Option<Vec<ServicePort>>,
    internal_traffic_policy: Option<Policy>,
    external_traffic_policy: Option<Policy>,
    session_affinity: Option<Affinity>,
    session_affinity_config: Option<AffinityConfig>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<Address>>,
    load_balancer_source_ranges: Option<Vec<Cidr>>,
    health_check_node_port: Option<Number>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
struct ServicePort {
    name: Option<Name>,
    protocol: Option<Protocol>,
    port: Number,
    node_port: Option<Number>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<Timeout>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct Timeout {
    #[serde(rename = "timeoutSeconds")]
    seconds: Option<Number>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct ServiceStatus {
    #[serde(rename = "loadBalancer")]
    load_balancer: Option<LoadBalancer>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    ip: Option<Address>,
    ip_mode: Option<IpMode>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Slice {
    pub(crate) metadata: Metadata,
    address_type: Option<AddressType>,
    ports: Option<Vec<SlicePort>>,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct SlicePort {
    name: Option<Name>,
    protocol: Option<Protocol>,
    port: Option<Number>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<Address>>,
    conditions: Option<Conditions>,
    node_name: Option<Name>,
    hints: Option<Hints>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
#[serde(rename_all = "camelCase")]
struct Hints {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct Named {
    name: Name,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
pub(crate) struct Node {
    pub(crate) metadata: Metadata,
    spec: Option<NodeSpec>,
    status: Option<NodeStatus>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<Cidr>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<Cidr>>,
    taints: Option<Vec<Taint>>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct Taint {
    key: TaintKey,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct NodeStatus {
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Debug, Clone, Serialize, Arbitrary)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: NodeAddressType,
    address: Address,
}
