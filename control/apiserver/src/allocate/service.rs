//! What a Service needs, worded and ordered as upstream's `pkg/registry/core/service/storage/alloc.go`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use seaway_store::Txn;
use serde_json::{Value, json};

use super::{ADDRESSES, AddressRange, AllocateError, PORTS, Ranges, free, take};
use crate::kinds::FieldError;

/// Keys of the allocations that a Service stands for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) addresses: BTreeSet<String>,
    pub(super) ports: BTreeSet<String>,
}

impl Held {
    pub(super) fn of(service: &Value) -> Self {
        if kind_of(service) == "ExternalName" {
            return Self::default();
        }
        let addresses = cluster_ips(service)
            .into_iter()
            .filter_map(|text| text.parse::<IpAddr>().ok());
        let ports = ports(service)
            .iter()
            .filter_map(|port| port.get("nodePort"));
        let ports = ports.chain(service.pointer("/spec/healthCheckNodePort"));
        let ports = ports.filter_map(Value::as_u64).filter(|port| *port != 0);
        Self {
            addresses: addresses.map(|address| address.to_string()).collect(),
            ports: ports.map(|port| port.to_string()).collect(),
        }
    }
}

pub(super) fn assign(
    txn: &mut Txn<'_>,
    ranges: &Ranges,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<(), AllocateError> {
    let before = old.map(Held::of).unwrap_or_default();
    if kind_of(new) != "ExternalName" && new.get("spec").is_some_and(Value::is_object) {
        families(ranges, new)?;
        assign_addresses(txn, ranges, new, &before)?;
        assign_ports(txn, ranges, new, &before)?;
    }
    let after = Held::of(new);
    for key in before.addresses.difference(&after.addresses) {
        free(txn, ADDRESSES, key);
    }
    for key in before.ports.difference(&after.ports) {
        free(txn, PORTS, key);
    }
    Ok(())
}

fn kind_of(service: &Value) -> &str {
    service
        .pointer("/spec/type")
        .and_then(Value::as_str)
        .unwrap_or("ClusterIP")
}

fn ports(service: &Value) -> &[Value] {
    service
        .pointer("/spec/ports")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn cluster_ips(service: &Value) -> Vec<String> {
    let one = service
        .pointer("/spec/clusterIP")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty());
    let many = service
        .pointer("/spec/clusterIPs")
        .and_then(Value::as_array);
    match (one, many) {
        (_, Some(many)) if !many.is_empty() => many
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        (Some(one), _) => vec![one.to_owned()],
        (None, _) => Vec::new(),
    }
}

fn texts(service: &Value, pointer: &str) -> Vec<String> {
    let list = service
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Decides `ipFamilies` and `ipFamilyPolicy` from what is asked, what is given and what the cluster has.
fn families(ranges: &Ranges, service: &mut Value) -> Result<(), AllocateError> {
    let available: Vec<&str> = ranges.services.iter().map(AddressRange::family).collect();
    let policy = service
        .pointer("/spec/ipFamilyPolicy")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let mut families = texts(service, "/spec/ipFamilies");
    for (index, family) in families.iter().enumerate() {
        if !available.contains(&family.as_str()) {
            let error = FieldError::invalid(
                format!("spec.ipFamilies[{index}]"),
                family.as_str(),
                "not configured on this cluster",
            );
            return Err(error.into());
        }
    }
    let addresses = cluster_ips(service);
    let given: Vec<&str> = addresses
        .iter()
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
        .collect();
    for family in &given {
        if !families.iter().any(|known| known == family) {
            families.push((*family).to_owned());
        }
    }
    let dual = policy
        .as_deref()
        .is_some_and(|policy| policy != "SingleStack");
    if policy.as_deref() == Some("RequireDualStack") && available.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", detail).into());
    }
    if families.is_empty()
        && let Some(primary) = available.first()
    {
        families.push((*primary).to_owned());
    }
    if dual {
        for family in &available {
            if !families.iter().any(|known| known == family) {
                families.push((*family).to_owned());
            }
        }
    }
    let policy = policy.unwrap_or_else(|| {
        if families.len() > 1 {
            "RequireDualStack".to_owned()
        } else {
            "SingleStack".to_owned()
        }
    });
    service["spec"]["ipFamilies"] = json!(families);
    service["spec"]["ipFamilyPolicy"] = json!(policy);
    Ok(())
}

fn assign_addresses(
    txn: &mut Txn<'_>,
    ranges: &Ranges,
    service: &mut Value,
    before: &Held,
) -> Result<(), AllocateError> {
    let mut addresses = cluster_ips(service);
    if addresses.iter().any(|address| address == "None") {
        service["spec"]["clusterIP"] = json!("None");
        service["spec"]["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    for text in &addresses {
        // Not an address: validation says so, with the field.
        let Ok(address) = text.parse::<IpAddr>() else {
            return Ok(());
        };
        if before.addresses.contains(&address.to_string()) {
            continue;
        }
        let Some(range) = ranges
            .services
            .iter()
            .find(|range| range.is_ipv4() == address.is_ipv4())
        else {
            continue;
        };
        let problem = if !range.contains(address) {
            format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
            )
        } else if !take(txn, ADDRESSES, &address.to_string(), service) {
            "provided IP is already allocated".to_owned()
        } else {
            continue;
        };
        let detail = format!("failed to allocate IP {address}: {problem}");
        return Err(FieldError::invalid("spec.clusterIPs", json!(addresses), detail).into());
    }
    let families = texts(service, "/spec/ipFamilies");
    for family in families.iter().skip(addresses.len()) {
        let Some(range) = ranges
            .services
            .iter()
            .find(|range| range.family() == family)
        else {
            continue;
        };
        let free = range
            .candidates(rand::random())
            .map(|address| address.to_string())
            .find(|address| take(txn, ADDRESSES, address, service));
        let Some(address) = free else {
            return Err(AllocateError::Full(format!(
                "failed to allocate a serviceIP: range {range} is full"
            )));
        };
        addresses.push(address);
    }
    if let Some(first) = addresses.first() {
        service["spec"]["clusterIP"] = json!(first);
        service["spec"]["clusterIPs"] = json!(addresses);
    }
    Ok(())
}

fn assign_ports(
    txn: &mut Txn<'_>,
    ranges: &Ranges,
    service: &mut Value,
    before: &Held,
) -> Result<(), AllocateError> {
    let kind = kind_of(service).to_owned();
    if kind != "NodePort" && kind != "LoadBalancer" {
        return Ok(());
    }
    let on_demand = kind == "NodePort"
        || service
            .pointer("/spec/allocateLoadBalancerNodePorts")
            .and_then(Value::as_bool)
            != Some(false);
    let mut taken = before.ports.clone();
    // Ports of one number (TCP and UDP 53) share a node port unless the user says otherwise.
    let mut by_number: HashMap<u64, u64> = HashMap::new();
    let requested: Vec<(u64, u64)> = ports(service)
        .iter()
        .map(|port| (number(port, "port"), number(port, "nodePort")))
        .collect();
    for (index, (port, wanted)) in requested.iter().copied().enumerate() {
        let wanted = match by_number.get(&port) {
            _ if wanted != 0 => wanted,
            Some(shared) => *shared,
            None => requested[index..]
                .iter()
                .find(|(p, n)| *p == port && *n != 0)
                .map_or(0, |(_, node)| *node),
        };
        let field = format!("spec.ports[{index}].nodePort");
        let node_port = match (wanted, on_demand) {
            (0, false) => continue,
            (0, true) => any_port(txn, ranges, service)?,
            (wanted, _) => exact_port(txn, ranges, service, wanted, &taken, &field)?,
        };
        taken.insert(node_port.to_string());
        by_number.entry(port).or_insert(node_port);
        if let Some(port) = service.pointer_mut(&format!("/spec/ports/{index}")) {
            port["nodePort"] = json!(node_port);
        }
    }
    let local = service
        .pointer("/spec/externalTrafficPolicy")
        .and_then(Value::as_str)
        == Some("Local");
    if kind == "LoadBalancer" && local {
        let field = "spec.healthCheckNodePort";
        let port = match service
            .pointer("/spec/healthCheckNodePort")
            .and_then(Value::as_u64)
            .unwrap_or(0)
        {
            0 => any_port(txn, ranges, service)?,
            wanted => exact_port(txn, ranges, service, wanted, &before.ports, field)?,
        };
        service["spec"]["healthCheckNodePort"] = json!(port);
    }
    Ok(())
}

fn number(port: &Value, field: &str) -> u64 {
    port.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn any_port(txn: &mut Txn<'_>, ranges: &Ranges, service: &Value) -> Result<u64, AllocateError> {
    let free = ranges
        .node_ports
        .candidates(rand::random())
        .find(|port| take(txn, PORTS, &port.to_string(), service));
    free.map(u64::from).ok_or_else(|| {
        AllocateError::Full(format!(
            "failed to allocate a nodePort: range {} is full",
            ranges.node_ports
        ))
    })
}

fn exact_port(
    txn: &mut Txn<'_>,
    ranges: &Ranges,
    service: &Value,
    wanted: u64,
    mine: &BTreeSet<String>,
    field: &str,
) -> Result<u64, AllocateError> {
    if mine.contains(&wanted.to_string()) {
        return Ok(wanted);
    }
    let detail = match u16::try_from(wanted) {
        Ok(port) if ranges.node_ports.contains(port) => {
            if take(txn, PORTS, &port.to_string(), service) {
                return Ok(wanted);
            }
            "provided port is already allocated".to_owned()
        }
        _ => format!(
            "provided port is not in the valid range. The range of valid ports is {}",
            ranges.node_ports
        ),
    };
    Err(FieldError::invalid(field, wanted, detail).into())
}
