use std::net::IpAddr;

use serde_json::Value;

use super::super::FieldError;
use super::super::validation::{
    label_map, metadata, names, names::NameRule, port_number, protocol,
};
use super::super::value::{int, list, text};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];
/// All of Kubernetes 1.35 (KEP-4444, KEP-3015).
const TRAFFIC_DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
/// Upstream's bound for the affinity timeout: one day.
const MAX_AFFINITY: i64 = 86_400;
const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(super) fn service(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Dns1035, &mut errors);
    let spec = &object["spec"];
    let kind = text(spec, "/type");
    let headless = text(spec, "/clusterIP") == "None";
    if list(spec, "/ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    by_type(spec, kind, headless, &mut errors);
    ports(list(spec, "/ports"), kind, &mut errors);
    label_map(spec.get("selector"), "spec.selector", &mut errors);
    affinity(spec, &mut errors);
    one_of(spec, "type", TYPES, &mut errors);
    one_of(spec, "ipFamilyPolicy", FAMILY_POLICIES, &mut errors);
    addresses(spec, kind, &mut errors);
    policies(spec, kind, &mut errors);
    if let Some(old) = old {
        unchanged(spec, &old["spec"], &mut errors);
    }
    errors
}

fn by_type(spec: &Value, kind: &str, headless: bool, errors: &mut Vec<FieldError>) {
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
        }
        "ExternalName" => {
            if !list(spec, "/clusterIPs").is_empty() {
                errors.push(FieldError::forbidden(
                    "spec.clusterIPs",
                    "may not be set for ExternalName services",
                ));
            }
            let name = text(spec, "/externalName").trim_end_matches('.');
            if name.is_empty() {
                errors.push(FieldError::required("spec.externalName", ""));
            } else {
                errors.extend(FieldError::invalid_by(
                    "spec.externalName",
                    name,
                    names::subdomain(name),
                ));
            }
        }
        _ => {}
    }
}

fn ports(ports: &[Value], kind: &str, errors: &mut Vec<FieldError>) {
    let mut names_seen: Vec<&str> = Vec::new();
    let mut ports_seen: Vec<(i64, &str)> = Vec::new();
    let mut node_ports: Vec<(i64, &str)> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        let name = text(port, "/name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(format!("{field}.name"), ""));
            }
        } else {
            names::unique(
                name,
                names::label,
                &format!("{field}.name"),
                &mut names_seen,
                errors,
            );
        }
        let number = int(port, "/port").unwrap_or(0);
        port_number(number, &format!("{field}.port"), errors);
        let transport = text(port, "/protocol");
        protocol(transport, &format!("{field}.protocol"), errors);
        target_port(port, &format!("{field}.targetPort"), errors);
        if ports_seen.contains(&(number, transport)) {
            let value = serde_json::json!({ "port": number, "protocol": transport });
            errors.push(FieldError::duplicate(&field, value));
        }
        ports_seen.push((number, transport));
        let Some(node_port) = int(port, "/nodePort").filter(|n| *n != 0) else {
            continue;
        };
        let field = format!("{field}.nodePort");
        if !matches!(kind, "NodePort" | "LoadBalancer") {
            let detail = format!("may not be used when `type` is '{kind}'");
            errors.push(FieldError::forbidden(&field, detail));
        } else if node_ports.contains(&(node_port, transport)) {
            errors.push(FieldError::duplicate(&field, node_port));
        }
        node_ports.push((node_port, transport));
    }
}

fn target_port(port: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match port.get("targetPort") {
        Some(Value::String(name)) => {
            errors.extend(FieldError::invalid_by(
                field,
                name.as_str(),
                names::port_name(name),
            ));
        }
        Some(number) => port_number(number.as_i64().unwrap_or(0), field, errors),
        None => {}
    }
}

fn affinity(spec: &Value, errors: &mut Vec<FieldError>) {
    let affinity = text(spec, "/sessionAffinity");
    if affinity.is_empty() {
        errors.push(FieldError::required("spec.sessionAffinity", ""));
    } else {
        one_of(spec, "sessionAffinity", AFFINITIES, errors);
    }
    let timeout = int(spec, "/sessionAffinityConfig/clientIP/timeoutSeconds");
    if let Some(seconds) =
        timeout.filter(|s| affinity == "ClientIP" && !(1..=MAX_AFFINITY).contains(s))
    {
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY}");
        errors.push(FieldError::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            seconds,
            detail,
        ));
    }
}

fn addresses(spec: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    if kind != "ExternalName" {
        let ip = text(spec, "/clusterIP");
        let ips = list(spec, "/clusterIPs");
        if ip.is_empty() && !ips.is_empty() {
            let detail = "clusterIPs must be empty when clusterIP is not specified";
            errors.push(FieldError::invalid("spec.clusterIPs", ips.to_vec(), detail));
        } else if let Some(first) = ips
            .first()
            .and_then(Value::as_str)
            .filter(|first| *first != ip)
        {
            let detail = "first value must match `clusterIP`";
            errors.push(FieldError::invalid("spec.clusterIPs", first, detail));
        }
        for (i, ip) in ips.iter().enumerate() {
            let ip = ip.as_str().unwrap_or_default();
            if !(ip == "None" && i == 0) && ip.parse::<IpAddr>().is_err() {
                errors.push(FieldError::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    ip,
                    BAD_IP,
                ));
            }
        }
        for (i, family) in list(spec, "/ipFamilies").iter().enumerate() {
            let family = family.as_str().unwrap_or_default();
            if !FAMILIES.contains(&family) {
                errors.push(FieldError::not_supported(
                    format!("spec.ipFamilies[{i}]"),
                    family,
                    FAMILIES,
                ));
            }
        }
    }
    for (i, ip) in list(spec, "/externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        let field = format!("spec.externalIPs[{i}]");
        match ip.parse::<IpAddr>() {
            Err(_) => errors.push(FieldError::invalid(field, ip, BAD_IP)),
            Ok(parsed) if parsed.is_unspecified() => {
                errors.push(FieldError::invalid(
                    field,
                    ip,
                    format!("may not be unspecified ({ip})"),
                ));
            }
            Ok(parsed) if parsed.is_loopback() => {
                let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
                errors.push(FieldError::invalid(field, ip, detail));
            }
            Ok(_) => {}
        }
    }
    let ranges = list(spec, "/loadBalancerSourceRanges");
    if !ranges.is_empty() && kind != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(
            "spec.LoadBalancerSourceRanges",
            detail,
        ));
    }
    for (i, range) in ranges.iter().enumerate() {
        let range = range.as_str().unwrap_or_default().trim();
        if !range.contains('/') || range.parse::<ipnetwork::IpNetwork>().is_err() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(
                format!("spec.LoadBalancerSourceRanges[{i}]"),
                range,
                detail,
            ));
        }
    }
}

fn policies(spec: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && !list(spec, "/externalIPs").is_empty();
    let policy = text(spec, "/externalTrafficPolicy");
    if !external && !policy.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            policy,
            detail,
        ));
    } else {
        one_of(spec, "externalTrafficPolicy", TRAFFIC_POLICIES, errors);
    }
    one_of(spec, "internalTrafficPolicy", TRAFFIC_POLICIES, errors);
    one_of(spec, "trafficDistribution", TRAFFIC_DISTRIBUTIONS, errors);
    let class = text(spec, "/loadBalancerClass");
    if !class.is_empty() && kind != "LoadBalancer" {
        errors.push(FieldError::forbidden(
            "spec.loadBalancerClass",
            "may only be used when `type` is 'LoadBalancer'",
        ));
    }
    let port = int(spec, "/healthCheckNodePort").unwrap_or(0);
    if port != 0 && !(kind == "LoadBalancer" && policy == "Local") {
        let detail =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(
            "spec.healthCheckNodePort",
            port,
            detail,
        ));
    }
}

/// `ValidateServiceClusterIPsRelatedFields` for updates: an address stays for the life of the Service, unless the type
/// moves to or from ExternalName.
fn unchanged(spec: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let external = |spec: &Value| text(spec, "/type") == "ExternalName";
    if external(spec) || external(old) {
        return;
    }
    let (before, after) = (list(old, "/clusterIPs"), list(spec, "/clusterIPs"));
    if let (Some(first), now) = (before.first(), after.first())
        && now != Some(first)
    {
        let detail = "may not change once set";
        errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            after.to_vec(),
            detail,
        ));
    }
    let (before, after) = (list(old, "/ipFamilies"), list(spec, "/ipFamilies"));
    if let (Some(first), Some(now)) = (before.first(), after.first())
        && first != now
    {
        errors.push(FieldError::invalid(
            "spec.ipFamilies[0]",
            now.clone(),
            "may not change once set",
        ));
    }
}

fn one_of(spec: &Value, key: &str, supported: &[&str], errors: &mut Vec<FieldError>) {
    let value = spec.get(key).and_then(Value::as_str).unwrap_or_default();
    if !value.is_empty() && !supported.contains(&value) {
        errors.push(FieldError::not_supported(
            format!("spec.{key}"),
            value,
            supported,
        ));
    }
}
