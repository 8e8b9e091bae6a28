//! Node → [`seaway_model::Node`].

use std::sync::Arc;

use seaway_model::ownership::DIRECT_ANSWERS_ANNOTATION;
use seaway_model::{DirectAnswers, Node};

use super::Report;
use crate::intern::Interner;
use crate::ip::{parse_cidr, parse_ip};
use crate::wire;

/// Set by the cluster autoscaler before it takes the machine away; kube-proxy knows no other.
const AUTOSCALER_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

pub(super) fn convert(
    name: &Arc<str>,
    node: &wire::Node,
    names: &mut Interner,
    report: &mut Report,
) -> Node {
    let mut addresses = Vec::new();
    for (i, address) in node.status.addresses.iter().enumerate() {
        if address.type_ != "InternalIP" {
            continue;
        }
        match parse_ip(&address.address) {
            Some(ip) => addresses.push(ip),
            None => report.add(
                format!("status.addresses[{i}].address"),
                format!("{:?} is not an IP address: ignored", address.address),
            ),
        }
    }
    // podCIDRs replaced podCIDR; old objects may have only the latter.
    let single: Vec<String> = node.spec.pod_cidr.iter().cloned().collect();
    let (field, texts) = if node.spec.pod_cidrs.is_empty() {
        ("spec.podCIDR", &single)
    } else {
        ("spec.podCIDRs", &node.spec.pod_cidrs)
    };
    let mut pod_cidrs = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        match parse_cidr(text) {
            Some(cidr)
                if pod_cidrs
                    .iter()
                    .any(|other: &ipnetwork::IpNetwork| other.is_ipv4() == cidr.is_ipv4()) =>
            {
                report.add(
                    field,
                    format!("{cidr} is the second prefix of its family: ignored"),
                );
            }
            Some(cidr) => pod_cidrs.push(cidr),
            None => report.add(
                field,
                format!("{text:?} is not a prefix: pods of this node cannot be reached through it"),
            ),
        }
    }
    let zone = node
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(ZONE_LABEL))
        .filter(|zone| !zone.is_empty())
        .map(|zone| names.get(zone));
    Node {
        name: name.clone(),
        addresses,
        pod_cidrs,
        zone,
        draining: node.metadata.deletion_timestamp.is_some()
            || node
                .spec
                .taints
                .iter()
                .any(|taint| taint.key == AUTOSCALER_TAINT),
        direct_answers: direct_answers(node).map_or(DirectAnswers::No, DirectAnswers::parse),
    }
}

/// What the annotation says, whatever it is.
pub(crate) fn direct_answers(node: &wire::Node) -> Option<&str> {
    let annotations = node.metadata.annotations.as_ref()?;
    Some(annotations.get(DIRECT_ANSWERS_ANNOTATION)?)
}
