//! `discovery.k8s.io/v1 EndpointSlice`.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table_parts::{AGE, NAME, age, column};
use super::validation::{metadata, names, names::NameRule, port_number, protocol};
use super::value::{default, list, list_mut, text};
use super::verbs::STANDARD;
use super::{FieldError, Hooks, Kind, prepare};
use crate::meta;

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 100;
const MAX_ADDRESSES: usize = 100;
/// How many ports or addresses a table cell shows.
const SHOWN: usize = 3;

pub(super) static ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[],
    columns: &[
        NAME,
        column("AddressType", "Family of the addresses"),
        column("Ports", "Ports of every endpoint"),
        column("Endpoints", "Addresses"),
        AGE,
    ],
    selectable: &[],
    view_of: None,
    hooks: Hooks {
        default: fill,
        prepare_create: |object| meta::set_generation(object, 1),
        prepare_update,
        validate,
        row,
    },
};

fn fill(object: &mut Value) {
    if object.get("endpoints").is_none_or(Value::is_null) {
        object["endpoints"] = json!([]);
    }
    for port in list_mut(object, "/ports") {
        if port.get("name").is_none_or(Value::is_null) {
            port["name"] = "".into();
        }
        default(port, "protocol", "TCP");
    }
}

fn prepare_update(new: &mut Value, old: &Value) {
    prepare::plain_update(new, old);
    if ["endpoints", "ports", "addressType"]
        .iter()
        .any(|key| new.get(key) != old.get(key))
    {
        meta::set_generation(new, meta::generation(old) + 1);
    }
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    let kind = text(object, "/addressType");
    if kind.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !ADDRESS_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(
            "addressType",
            kind,
            ADDRESS_TYPES,
        ));
    }
    let endpoints = list(object, "/endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(
            "endpoints",
            endpoints.len(),
            MAX_ENDPOINTS,
        ));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(endpoint, kind, &format!("endpoints[{i}]"), &mut errors);
    }
    validate_ports(list(object, "/ports"), &mut errors);
    if let Some(old) = old
        && text(old, "/addressType") != kind
    {
        errors.push(FieldError::invalid(
            "addressType",
            kind,
            "field is immutable",
        ));
    }
    errors
}

fn validate_endpoint(endpoint: &Value, kind: &str, field: &str, errors: &mut Vec<FieldError>) {
    let addresses = list(endpoint, "/addresses");
    if addresses.is_empty() {
        errors.push(FieldError::required(
            format!("{field}.addresses"),
            "must contain at least 1 address",
        ));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(
            format!("{field}.addresses"),
            addresses.len(),
            MAX_ADDRESSES,
        ));
    }
    for (j, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        let field = format!("{field}.addresses[{j}]");
        match kind {
            "IPv4" | "IPv6" => validate_ip(address, kind, &field, errors),
            "FQDN" => {
                errors.extend(FieldError::invalid_by(
                    &field,
                    address,
                    names::subdomain(address),
                ));
            }
            _ => {}
        }
    }
    let hostname = text(endpoint, "/hostname");
    if !hostname.is_empty() {
        errors.extend(FieldError::invalid_by(
            format!("{field}.hostname"),
            hostname,
            names::label(hostname),
        ));
    }
    let node = text(endpoint, "/nodeName");
    if !node.is_empty() {
        errors.extend(FieldError::invalid_by(
            format!("{field}.nodeName"),
            node,
            names::subdomain(node),
        ));
    }
}

fn validate_ip(address: &str, kind: &str, field: &str, errors: &mut Vec<FieldError>) {
    let Ok(ip) = address.parse::<IpAddr>() else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(field, address, detail));
        return;
    };
    if ip.is_ipv4() != (kind == "IPv4") {
        errors.push(FieldError::invalid(
            field,
            address,
            format!("must be an {kind} address"),
        ));
        return;
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let why = if ip.is_unspecified() {
        format!("may not be unspecified ({address})")
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
    } else {
        return;
    };
    errors.push(FieldError::invalid(field, address, why));
}

fn validate_ports(ports: &[Value], errors: &mut Vec<FieldError>) {
    if ports.len() > MAX_PORTS {
        errors.push(FieldError::too_many("ports", ports.len(), MAX_PORTS));
    }
    let mut names_seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let field = format!("ports[{i}]");
        let name = text(port, "/name");
        if !name.is_empty() {
            errors.extend(FieldError::invalid_by(
                format!("{field}.name"),
                name,
                names::label(name),
            ));
        }
        if names_seen.contains(&name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), name));
        }
        names_seen.push(name);
        protocol(
            text(port, "/protocol"),
            &format!("{field}.protocol"),
            errors,
        );
        if let Some(number) = port.get("port").and_then(Value::as_i64) {
            port_number(number, &format!("{field}.port"), errors);
        }
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports =
        list(object, "/ports")
            .iter()
            .map(|port| match port.get("port").and_then(Value::as_i64) {
                Some(number) => number.to_string(),
                None if text(port, "/name").is_empty() => "*".to_owned(),
                None => text(port, "/name").to_owned(),
            });
    let addresses = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .map(|address| address.as_str().unwrap_or_default().to_owned());
    vec![
        meta::name(object).into(),
        text(object, "/addressType").into(),
        shortened(&ports.collect::<Vec<_>>()).into(),
        shortened(&addresses.collect::<Vec<_>>()).into(),
        age(object, now),
    ]
}

fn shortened(items: &[String]) -> String {
    if items.is_empty() {
        return "<unset>".to_owned();
    }
    let shown = items[..items.len().min(SHOWN)].join(",");
    if items.len() > SHOWN {
        format!("{shown} + {} more...", items.len() - SHOWN)
    } else {
        shown
    }
}
