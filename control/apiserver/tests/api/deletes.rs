//! Deletion: at once, marked, graceful, guarded.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Api, config_map, pod, service};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn the_answer_depends_on_the_kind() {
    let api = Api::start().await;
    let map = api.create(MAPS, config_map("a", json!({}))).await;
    let status = api.delete(&format!("{MAPS}/a"), json!({})).await.json();
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Success"))
    );
    let details = json!({ "name": "a", "kind": "configmaps", "uid": map["metadata"]["uid"] });
    assert_eq!(status["details"], details);
    assert_eq!(
        api.delete(&format!("{MAPS}/a"), json!({})).await.code,
        StatusCode::NOT_FOUND
    );
    let services = "/api/v1/namespaces/default/services";
    api.create(
        services,
        service("web", json!({ "ports": [{ "port": 80 }] })),
    )
    .await;
    assert_eq!(
        api.delete(&format!("{services}/web"), json!({}))
            .await
            .json()["kind"],
        "Service"
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_back() {
    let api = Api::start().await;
    let mut body = config_map("a", json!({}));
    body["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.create(MAPS, body).await;
    let path = format!("{MAPS}/a");
    let marked = api.delete(&path, json!({})).await.json();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = api.delete(&path, json!({})).await.json();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        marked["metadata"]["resourceVersion"]
    );
    let more = json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/new"] } });
    assert_eq!(
        api.merge(&path, more).await.code,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let undo = api
        .merge(&path, json!({ "metadata": { "deletionTimestamp": null } }))
        .await
        .json();
    assert_eq!(
        undo["metadata"]["deletionTimestamp"],
        marked["metadata"]["deletionTimestamp"]
    );
    assert_eq!(
        api.merge(&path, json!({ "metadata": { "finalizers": null } }))
            .await
            .code,
        StatusCode::OK
    );
    assert_eq!(api.get(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn propagation_becomes_finalizers() {
    let api = Api::start().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let name = policy.to_lowercase();
        api.create(MAPS, config_map(&name, json!({}))).await;
        let marked = api
            .delete(
                &format!("{MAPS}/{name}"),
                json!({ "propagationPolicy": policy }),
            )
            .await
            .json();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert!(marked["metadata"]["deletionTimestamp"].is_string());
    }
    api.create(MAPS, config_map("b", json!({}))).await;
    let gone = api
        .send(
            "DELETE",
            &format!("{MAPS}/b?propagationPolicy=Background"),
            &[],
            "",
        )
        .await;
    assert_eq!(gone.json()["status"], "Success");
    let wrong = api
        .delete(
            &format!("{MAPS}/orphan"),
            json!({ "propagationPolicy": "Sideways" }),
        )
        .await;
    assert_eq!(wrong.code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_running_pod_is_given_time() {
    let api = Api::start().await;
    let gone = |answer: &Value| answer["metadata"].get("deletionTimestamp").is_none();
    api.create(PODS, pod("free")).await;
    assert!(gone(
        &api.delete(&format!("{PODS}/free"), json!({})).await.json()
    ));
    assert_eq!(
        api.get(&format!("{PODS}/free")).await.code,
        StatusCode::NOT_FOUND
    );

    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n1");
    let path = format!("{PODS}/bound");
    api.create(PODS, bound.clone()).await;
    let marked = api.delete(&path, json!({})).await.json();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let sooner = api
        .delete(&path, json!({ "gracePeriodSeconds": 5 }))
        .await
        .json();
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    // Its agent ends it, guarded by the uid that it ran.
    let wrong = api
        .delete(
            &path,
            json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": "other" } }),
        )
        .await;
    assert_eq!(wrong.code, StatusCode::CONFLICT);
    let right =
        json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": marked["metadata"]["uid"] } });
    assert_eq!(api.delete(&path, right).await.code, StatusCode::OK);
    assert_eq!(api.get(&path).await.code, StatusCode::NOT_FOUND);

    bound["metadata"]["name"] = json!("done");
    api.create(PODS, bound).await;
    let path = format!("{PODS}/done");
    api.merge(
        &format!("{path}/status"),
        json!({ "status": { "phase": "Succeeded" } }),
    )
    .await;
    api.delete(&path, json!({})).await;
    assert_eq!(api.get(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn preconditions() {
    let api = Api::start().await;
    api.create(MAPS, config_map("a", json!({}))).await;
    let stale = json!({ "preconditions": { "resourceVersion": "1" } });
    let refused = api.delete(&format!("{MAPS}/a"), stale).await;
    assert_eq!(refused.code, StatusCode::CONFLICT);
    assert!(
        refused
            .failure()
            .2
            .contains("ResourceVersion in precondition: 1"),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn a_namespace_goes_through_finalize() {
    let api = Api::start().await;
    api.create(
        "/api/v1/namespaces",
        json!({ "metadata": { "name": "team" } }),
    )
    .await;
    let path = "/api/v1/namespaces/team";
    let marked = api.delete(path, json!({})).await.json();
    assert_eq!(
        (&marked["kind"], &marked["status"]["phase"]),
        (&json!("Namespace"), &json!("Terminating"))
    );
    let refused = api
        .post(
            "/api/v1/namespaces/team/configmaps",
            config_map("a", json!({})),
        )
        .await;
    assert_eq!(
        (refused.code, refused.failure().1.as_str()),
        (StatusCode::FORBIDDEN, "Forbidden")
    );
    assert_eq!(
        refused.json()["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    // The main resource cannot drop the finalizer, its own path can.
    let mut body = marked.clone();
    body["spec"]["finalizers"] = json!([]);
    assert_eq!(
        api.put(path, body.clone()).await.json()["spec"]["finalizers"],
        json!(["kubernetes"])
    );
    assert_eq!(
        api.put(&format!("{path}/finalize"), body).await.code,
        StatusCode::OK
    );
    assert_eq!(api.get(path).await.code, StatusCode::NOT_FOUND);
    let immortal = api.delete("/api/v1/namespaces/default", json!({})).await;
    let message = "namespaces \"default\" is forbidden: this namespace may not be deleted";
    assert_eq!(
        immortal.failure(),
        (403, "Forbidden".into(), message.into())
    );
}

#[tokio::test]
async fn collections() {
    let api = Api::start().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        api.create(MAPS, config_map(name, json!({ "app": app })))
            .await;
    }
    let answer = api
        .send("DELETE", &format!("{MAPS}?labelSelector=app%3Dx"), &[], "")
        .await
        .json();
    assert_eq!(
        (&answer["kind"], answer["items"].as_array().unwrap().len()),
        (&json!("ConfigMapList"), 2)
    );
    assert_eq!(
        api.get(MAPS).await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn options_that_mean_nothing() {
    let api = Api::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    api.create(maps, json!({ "metadata": { "name": "m" } }))
        .await;
    let path = format!("{maps}/m");
    let cases = [
        (
            json!({ "gracePeriodSeconds": -1 }),
            "gracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({ "dryRun": ["Some"] }),
            "dryRun: Unsupported value: \"Some\": supported values: \"All\"",
        ),
        (
            json!({ "propagationPolicy": "Sideways" }),
            "propagationPolicy: Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\"",
        ),
    ];
    for (options, expected) in cases {
        let (code, _, message) = api.delete(&path, options).await.failure();
        assert_eq!(code, 422);
        assert_eq!(
            message,
            format!("DeleteOptions.meta.k8s.io \"\" is invalid: {expected}")
        );
    }
    let negative = format!("{path}?gracePeriodSeconds=-1");
    assert_eq!(api.send("DELETE", &negative, &[], "").await.code, 422);
    assert_eq!(api.get(&path).await.code, 200);
}
