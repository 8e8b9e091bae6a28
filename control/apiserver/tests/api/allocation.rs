//! ClusterIPs and NodePorts: given, kept, fought over, given back.

use std::collections::HashSet;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Api, service};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn ports(port: u16) -> Value {
    json!([{ "port": port }])
}

fn message(answer: &Answer) -> String {
    assert_eq!(
        answer.code,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{}",
        answer.text
    );
    answer.failure().2
}

#[tokio::test]
async fn the_kubernetes_service_has_the_first_address() {
    let api = Api::start().await;
    let service = api.get(&format!("{SERVICES}/kubernetes")).await.json();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let slice = api
        .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        .await
        .json();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
}

#[tokio::test]
async fn every_service_gets_its_own_until_the_range_is_full() {
    let api = Api::start().await;
    // 254 addresses, one taken; created all at once.
    let names: Vec<String> = (0..253).map(|number| format!("s{number}")).collect();
    let creates = names
        .iter()
        .map(|name| api.post(SERVICES, service(name, json!({ "ports": ports(80) }))));
    let answers = futures::future::join_all(creates).await;
    let addresses: HashSet<String> = answers
        .iter()
        .map(|answer| {
            answer.json()["spec"]["clusterIP"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), 253);
    let full = api
        .post(SERVICES, service("more", json!({ "ports": ports(80) })))
        .await;
    assert_eq!(full.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        full.failure().2.ends_with("range 10.96.0.0/24 is full"),
        "{}",
        full.text
    );
    // What is deleted is free again, at once.
    api.delete(&format!("{SERVICES}/s7"), json!({})).await;
    api.create(SERVICES, service("more", json!({ "ports": ports(80) })))
        .await;
}

#[tokio::test]
async fn a_static_address_is_checked() {
    let api = Api::start().await;
    let wants =
        |name: &str, ip: &str| service(name, json!({ "clusterIP": ip, "ports": ports(80) }));
    api.create(SERVICES, wants("a", "10.96.0.10")).await;
    let taken = message(&api.post(SERVICES, wants("b", "10.96.0.10")).await);
    assert!(taken.contains("spec.clusterIPs: Invalid value"), "{taken}");
    assert!(
        taken.ends_with("failed to allocate IP 10.96.0.10: provided IP is already allocated"),
        "{taken}"
    );
    let outside = message(&api.post(SERVICES, wants("b", "10.97.0.1")).await);
    assert!(
        outside.contains("is not in the valid range. The range of valid IPs is 10.96.0.0/24"),
        "{outside}"
    );
    // Refused means nothing taken: the name and the address are free.
    api.create(SERVICES, wants("b", "10.96.0.11")).await;
    let headless = api.create(SERVICES, wants("h", "None")).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn an_update_keeps_and_may_not_change_the_address() {
    let api = Api::start().await;
    let created = api
        .create(
            SERVICES,
            service("a", json!({ "ports": ports(80), "type": "NodePort" })),
        )
        .await;
    let ip = created["spec"]["clusterIP"].clone();
    let node_port = created["spec"]["ports"][0]["nodePort"].clone();
    assert!((30_000..=30_099).contains(&node_port.as_u64().unwrap()));
    let path = format!("{SERVICES}/a");
    let kept = api
        .put(
            &path,
            service("a", json!({ "ports": ports(80), "type": "NodePort" })),
        )
        .await
        .json();
    assert_eq!(
        (
            &kept["spec"]["clusterIP"],
            &kept["spec"]["ports"][0]["nodePort"]
        ),
        (&ip, &node_port)
    );
    assert_eq!(
        kept["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    let moved = api
        .merge(
            &path,
            json!({ "spec": { "clusterIP": "10.96.0.99", "clusterIPs": ["10.96.0.99"] } }),
        )
        .await;
    assert!(
        message(&moved).contains("may not change once set"),
        "{}",
        moved.text
    );
    // A type without node ports gives them back.
    let plain = api
        .merge(&path, json!({ "spec": { "type": "ClusterIP" } }))
        .await
        .json();
    assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
    let spec = json!({ "type": "NodePort", "ports": [{ "port": 1, "nodePort": node_port }] });
    api.create(SERVICES, service("b", spec)).await;
    // And one without an address gives that back.
    let external = json!({ "spec": { "type": "ExternalName", "externalName": "example.com", "clusterIP": null,
                                     "clusterIPs": null } });
    assert_eq!(api.merge(&path, external).await.code, StatusCode::OK);
    api.create(
        SERVICES,
        service("c", json!({ "clusterIP": ip, "ports": ports(80) })),
    )
    .await;
}

#[tokio::test]
async fn node_ports() {
    let api = Api::start().await;
    let node = |ports: Value| json!({ "type": "NodePort", "ports": ports });
    let both = json!([{ "name": "t", "port": 53 }, { "name": "u", "port": 53, "protocol": "UDP" }]);
    let shared = api.create(SERVICES, service("dns", node(both))).await;
    let of = |index: usize| shared["spec"]["ports"][index]["nodePort"].clone();
    assert_eq!(of(0), of(1), "one number for TCP and UDP");
    let taken = message(
        &api.post(
            SERVICES,
            service("b", node(json!([{ "port": 1, "nodePort": of(0) }]))),
        )
        .await,
    );
    assert!(
        taken.contains("spec.ports[0].nodePort: Invalid value"),
        "{taken}"
    );
    assert!(
        taken.ends_with("provided port is already allocated"),
        "{taken}"
    );
    let outside = message(
        &api.post(
            SERVICES,
            service("b", node(json!([{ "port": 1, "nodePort": 80 }]))),
        )
        .await,
    );
    assert!(
        outside.ends_with(
            "provided port is not in the valid range. The range of valid ports is 30000-30099"
        ),
        "{outside}"
    );
}
