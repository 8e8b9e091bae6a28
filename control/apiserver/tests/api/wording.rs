//! Refusals, word for word as Kubernetes' own server puts them: people search the web for them, and tools match them.

use serde_json::{Value, json};

use crate::support::{Answer, Api};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn deployment(spec: &Value) -> Value {
    let template = json!({ "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let mut object = json!({ "metadata": { "name": "web" }, "spec": { "template": template } });
    json_patch::merge(&mut object["spec"], spec);
    object
}

async fn patch(api: &Api, media: &str, path: &str, body: Value) -> Answer {
    let path = format!("{path}?fieldValidation=Strict");
    api.send(
        "PATCH",
        &path,
        &[("content-type", media)],
        &body.to_string(),
    )
    .await
}

#[tokio::test]
async fn patches_that_make_no_object() {
    let api = Api::start().await;
    let selector = json!({ "selector": { "matchLabels": { "a": "b" } } });
    api.create(DEPLOYMENTS, deployment(&selector)).await;
    let path = format!("{DEPLOYMENTS}/web");
    let unknown = json!({ "spec": { "replicaz": 2 } });
    let refused = patch(&api, STRATEGIC, &path, unknown.clone()).await;
    let message = " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicaz:2]]\": strict decoding error: unknown \
                   field \"spec.replicaz\"";
    assert_eq!(refused.failure(), (422, "Invalid".into(), message.into()));
    assert_eq!(refused.json()["details"]["causes"][0]["field"], "patch");
    let refused = patch(&api, MERGE, &path, unknown).await;
    let (code, _, message) = refused.failure();
    assert_eq!(code, 422);
    assert!(
        message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"),
        "{message}"
    );
    assert!(message.ends_with("strict decoding error: unknown field \"spec.replicaz\""));
    let refused = patch(
        &api,
        STRATEGIC,
        &path,
        json!({ "spec": { "replicas": "2" } }),
    )
    .await;
    assert_eq!(refused.code, 422, "{}", refused.text);
}

#[tokio::test]
async fn selectors_and_templates() {
    let api = Api::start().await;
    let mismatch = "spec.template.metadata.labels: Invalid value: map[string]string{\"a\":\"b\"}: `selector` does not \
                    match template `labels`";
    let without = api.post(DEPLOYMENTS, deployment(&json!({}))).await;
    let message =
        format!("Deployment.apps \"web\" is invalid: [spec.selector: Required value, {mismatch}]");
    assert_eq!(without.failure().2, message);
    let other = json!({ "selector": { "matchLabels": { "a": "c" } } });
    let other = api.post(DEPLOYMENTS, deployment(&other)).await;
    assert_eq!(
        other.failure().2,
        format!("Deployment.apps \"web\" is invalid: {mismatch}")
    );
    let empty = api
        .post(DEPLOYMENTS, deployment(&json!({ "selector": {} })))
        .await;
    assert_eq!(
        empty.failure().2,
        "Deployment.apps \"web\" is invalid: spec.selector: Invalid value: {}: empty selector is invalid for deployment"
    );
}

#[tokio::test]
async fn addresses_stay() {
    let api = Api::start().await;
    let service = json!({ "metadata": { "name": "web" }, "spec": { "clusterIP": "10.96.0.7", "ports": [{ "port": 80 }] } });
    api.create(SERVICES, service).await;
    let change = json!({ "spec": { "clusterIP": "10.96.0.8" } });
    let refused = patch(&api, MERGE, &format!("{SERVICES}/web"), change).await;
    assert_eq!(
        refused.failure().2,
        "Service \"web\" is invalid: spec.clusterIPs[0]: Invalid value: []string{\"10.96.0.8\"}: may not change once set"
    );
}

#[tokio::test]
async fn empty_maps_are_no_change() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let made = api
        .create(path, json!({ "metadata": { "name": "m" }, "data": {} }))
        .await;
    assert!(made.get("data").is_none(), "{made}");
    let empty = json!({ "metadata": { "annotations": {}, "labels": {}, "finalizers": [] } });
    let same = patch(&api, MERGE, &format!("{path}/m"), empty).await;
    assert_eq!(same.json(), made);
}

#[tokio::test]
async fn a_generated_namespace_carries_its_name() {
    let api = Api::start().await;
    let made = api
        .create(
            "/api/v1/namespaces",
            json!({ "metadata": { "generateName": "shop-" } }),
        )
        .await;
    let name = made["metadata"]["name"].clone();
    assert!(name.as_str().unwrap().starts_with("shop-"));
    assert_eq!(
        made["metadata"]["labels"]["kubernetes.io/metadata.name"],
        name
    );
}

#[tokio::test]
async fn commands_that_need_a_stream_into_a_pod_are_told_what_to_use() {
    let api = Api::start().await;
    for subresource in ["exec", "attach", "portforward"] {
        let path = format!("/api/v1/namespaces/default/pods/p/{subresource}");
        let (code, reason, message) = api.post(&path, json!({})).await.failure();
        assert_eq!((code, reason.as_str()), (405, "MethodNotAllowed"));
        assert_eq!(
            message,
            format!(
                "this server does not offer {subresource} of pods; in a lab, `seaway lab exec p -- COMMAND` runs a command in a pod"
            )
        );
    }
    let unknown = api.get("/api/v1/namespaces/default/pods/p/foo").await;
    assert_eq!(unknown.text, "404 page not found\n");
}
