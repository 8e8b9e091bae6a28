use jiff::Timestamp;
use serde_json::Value;

use super::super::table_parts::{age, labels, none_if_empty};
use super::super::value::{int, list, text};
use crate::meta;

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = list(object, "/spec/clusterIPs")
        .first()
        .and_then(Value::as_str);
    let cluster_ip = cluster_ip.unwrap_or_else(|| text(object, "/spec/clusterIP"));
    vec![
        meta::name(object).into(),
        text(object, "/spec/type").into(),
        none_if_empty(cluster_ip.to_owned()).into(),
        external(object).into(),
        ports(object).into(),
        age(object, now),
        labels(object, "/spec/selector").into(),
    ]
}

fn external(object: &Value) -> String {
    let mut addresses: Vec<&str> = Vec::new();
    match text(object, "/spec/type") {
        "ExternalName" => return text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            for ingress in list(object, "/status/loadBalancer/ingress") {
                let ip = text(ingress, "/ip");
                addresses.push(if ip.is_empty() {
                    text(ingress, "/hostname")
                } else {
                    ip
                });
            }
            addresses.extend(
                list(object, "/spec/externalIPs")
                    .iter()
                    .filter_map(Value::as_str),
            );
            if addresses.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => addresses.extend(
            list(object, "/spec/externalIPs")
                .iter()
                .filter_map(Value::as_str),
        ),
    }
    none_if_empty(addresses.join(","))
}

fn ports(object: &Value) -> String {
    let ports: Vec<String> = list(object, "/spec/ports")
        .iter()
        .map(|port| {
            let number = int(port, "/port").unwrap_or(0);
            let protocol = text(port, "/protocol");
            match int(port, "/nodePort").filter(|n| *n > 0) {
                Some(node_port) => format!("{number}:{node_port}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    none_if_empty(ports.join(","))
}
