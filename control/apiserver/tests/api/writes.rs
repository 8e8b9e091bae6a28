//! Create, replace, patch: identity, versions, conflicts, bodies.

use http::StatusCode;
use serde_json::json;

use crate::support::{Api, config_map, pod, service, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_new_object_gets_its_identity_from_the_server() {
    let api = Api::start().await;
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "a", "uid": "mine", "creationTimestamp": null, "generation": 9 },
    });
    let created = api.create(MAPS, body).await;
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_ne!(created["metadata"]["uid"], "mine");
    assert!(created["metadata"]["creationTimestamp"].is_string());
    assert_eq!(version(&created), api.store.revision());
    let again = api.post(MAPS, config_map("a", json!({}))).await;
    assert_eq!(
        again.failure(),
        (
            409,
            "AlreadyExists".into(),
            "configmaps \"a\" already exists".into()
        )
    );

    let generated = api
        .create(MAPS, json!({ "metadata": { "generateName": "web-" } }))
        .await;
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let namespace = api
        .create(
            "/api/v1/namespaces",
            json!({ "metadata": { "name": "team" } }),
        )
        .await;
    assert_eq!(
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "team"
    );
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test]
async fn creates_that_are_refused() {
    let api = Api::start().await;
    let mut stamped = config_map("a", json!({}));
    stamped["metadata"]["resourceVersion"] = json!("5");
    let refused = api.post(MAPS, stamped).await;
    assert_eq!(
        refused.failure(),
        (
            500,
            "".into(),
            "resourceVersion should not be set on objects to be created".into()
        )
    );
    let missing = api
        .post(
            "/api/v1/namespaces/nope/configmaps",
            config_map("a", json!({})),
        )
        .await;
    assert_eq!(
        missing.failure(),
        (
            404,
            "NotFound".into(),
            "namespaces \"nope\" not found".into()
        )
    );
    let mut elsewhere = config_map("a", json!({}));
    elsewhere["metadata"]["namespace"] = json!("other");
    assert_eq!(
        api.post(MAPS, elsewhere).await.code,
        StatusCode::BAD_REQUEST
    );
    let other_kind = api
        .post(
            MAPS,
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" } }),
        )
        .await;
    assert_eq!(other_kind.code, StatusCode::BAD_REQUEST);
    let bad_name = api.post(MAPS, config_map("A_b", json!({}))).await;
    let (code, reason, message) = bad_name.failure();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(
        message
            .starts_with("ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": "),
        "{message}"
    );
    assert_eq!(
        bad_name.json()["details"]["causes"][0]["field"],
        "metadata.name"
    );
    let unnamed = api.post(MAPS, json!({})).await;
    assert!(
        unnamed
            .failure()
            .2
            .contains("name or generateName is required"),
        "{}",
        unnamed.text
    );
    let bad_field = json!({ "metadata": { "name": "a" }, "spec": { "containers": [], "foo": 1 } });
    let strict = api
        .post(&format!("{PODS}?fieldValidation=Strict"), bad_field)
        .await;
    assert_eq!(strict.code, StatusCode::BAD_REQUEST);
    assert!(
        strict
            .failure()
            .2
            .ends_with("strict decoding error: unknown field \"spec.foo\""),
        "{}",
        strict.text
    );
    let mut lenient = pod("a");
    lenient["spec"]["foo"] = json!(1);
    let warned = api
        .post(&format!("{PODS}?fieldValidation=Warn"), lenient)
        .await;
    assert_eq!(warned.code, StatusCode::CREATED);
    assert_eq!(
        warned.headers["warning"],
        "299 - \"unknown field \\\"spec.foo\\\"\""
    );
    assert_eq!(warned.json()["spec"].get("foo"), None);
}

#[tokio::test]
async fn bodies_in_every_dress() {
    let api = Api::start().await;
    let yaml = "metadata:\n  name: yml\ndata:\n  a: b\n";
    let send = async |kind: &str, body: &str| {
        api.send("POST", MAPS, &[("content-type", kind)], body)
            .await
    };
    let created = send("application/yaml", yaml).await;
    assert_eq!(
        (created.code, created.json()["data"]["a"].as_str()),
        (StatusCode::CREATED, Some("b"))
    );
    assert_eq!(
        send("application/json", "{").await.code,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        send("application/yaml", "a: [").await.code,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        send("text/plain", "x").await.code,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let protobuf = send("application/vnd.kubernetes.protobuf", "k8s").await;
    assert_eq!(protobuf.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(protobuf.failure().2.contains("kubectl create -f FILE"));
    let mut big = pod("big");
    big["spec"]["containers"][0]["args"] = json!(["y".repeat(2 << 20)]);
    assert_eq!(
        api.post(PODS, big).await.code,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let huge = "x".repeat((3 << 20) + 1);
    assert_eq!(
        send("application/json", &huge).await.code,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let apply = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{MAPS}/yml?fieldManager=me");
    assert_eq!(
        api.send("PATCH", &path, &apply, "{}").await.code,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
}

#[tokio::test]
async fn replaces() {
    let api = Api::start().await;
    let old = api.create(MAPS, config_map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    let mut new = old.clone();
    new["data"]["key"] = json!("changed");
    let changed = api.put(&path, new.clone()).await.json();
    assert!(version(&changed) > version(&old));
    // The same body again: its version is stale now.
    let stale = api.put(&path, new.clone()).await;
    let message = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
                   changes to the latest version and try again";
    assert_eq!(stale.failure(), (409, "Conflict".into(), message.into()));
    // Without a version it is unconditional; a replace that changes nothing keeps the version.
    new["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    assert_eq!(
        version(&api.put(&path, new.clone()).await.json()),
        version(&changed)
    );
    let mut other = new.clone();
    other["metadata"]["uid"] = json!("other");
    assert_eq!(api.put(&path, other).await.code, StatusCode::CONFLICT);
    let mut renamed = new.clone();
    renamed["metadata"]["name"] = json!("b");
    assert_eq!(api.put(&path, renamed).await.code, StatusCode::BAD_REQUEST);
    assert_eq!(
        api.put(&format!("{MAPS}/none"), config_map("none", json!({})))
            .await
            .code,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn patches() {
    let api = Api::start().await;
    api.create(MAPS, config_map("a", json!({ "x": "1" }))).await;
    let path = format!("{MAPS}/a");
    let json_patch = json!([{ "op": "replace", "path": "/data/key", "value": "v2" }]).to_string();
    let send = async |kind: &str, body: &str| {
        api.send("PATCH", &path, &[("content-type", kind)], body)
            .await
    };
    let patched = send("application/json-patch+json", &json_patch)
        .await
        .json();
    assert_eq!(patched["data"]["key"], "v2");
    let merged = send(
        "application/merge-patch+json",
        r#"{"metadata":{"labels":{"x":null,"y":"2"}}}"#,
    )
    .await
    .json();
    assert_eq!(merged["metadata"]["labels"], json!({ "y": "2" }));
    let stale =
        json!({ "metadata": { "resourceVersion": version(&patched).to_string() }, "data": {} })
            .to_string();
    assert_eq!(
        send("application/merge-patch+json", &stale).await.code,
        StatusCode::CONFLICT
    );
    let strategic = r#"{"data":{"more":"1"}}"#;
    let both = send("application/strategic-merge-patch+json", strategic)
        .await
        .json();
    assert_eq!(both["data"], json!({ "key": "v2", "more": "1" }));
    assert_eq!(
        send("application/json", "{}").await.code,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    assert_eq!(
        send("application/merge-patch+json", "nonsense").await.code,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn many_patches_at_once_all_count() {
    let api = Api::start().await;
    api.create(MAPS, config_map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    let patches =
        (0..40).map(|number| api.merge(&path, json!({ "data": { number.to_string(): "x" } })));
    for answer in futures::future::join_all(patches).await {
        assert_eq!(answer.code, StatusCode::OK);
    }
    assert_eq!(
        api.get(&path).await.json()["data"]
            .as_object()
            .unwrap()
            .len(),
        41
    );
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let api = Api::start().await;
    let before = api.store.revision();
    let path = "/api/v1/namespaces/default/services?dryRun=All";
    let spec = json!({ "type": "NodePort", "ports": [{ "port": 80 }] });
    let created = api.create(path, service("web", spec)).await;
    assert!(
        created["spec"]["clusterIP"].is_string()
            && created["spec"]["ports"][0]["nodePort"].is_number()
    );
    assert_eq!(created["metadata"].get("resourceVersion"), None);
    api.create(MAPS, config_map("a", json!({}))).await;
    api.merge(
        &format!("{MAPS}/a?dryRun=All"),
        json!({ "data": { "x": "y" } }),
    )
    .await;
    let gone = api
        .delete(&format!("{MAPS}/a"), json!({ "dryRun": ["All"] }))
        .await;
    assert_eq!(gone.code, StatusCode::OK);
    assert_eq!(
        api.get(&format!("{MAPS}/a")).await.json()["data"],
        json!({ "key": "value" })
    );
    assert_eq!(api.store.revision(), before + 1);
    let wrong = api
        .post(&format!("{MAPS}?dryRun=Some"), config_map("b", json!({})))
        .await;
    assert_eq!(wrong.code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn status_and_generation() {
    let api = Api::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({
        "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": pod("x")["spec"] },
        },
        "status": { "replicas": 7 },
    });
    let created = api.create(path, deployment).await;
    assert_eq!(
        (
            &created["metadata"]["generation"],
            &created["spec"]["replicas"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(created.pointer("/status/replicas"), None);
    let path = format!("{path}/web");
    let status =
        json!({ "status": { "observedGeneration": 1, "replicas": 1 }, "spec": { "replicas": 9 } });
    let updated = api.merge(&format!("{path}/status"), status).await.json();
    let fields = ["/metadata/generation", "/spec/replicas", "/status/replicas"]
        .map(|field| updated.pointer(field));
    assert_eq!(fields, [Some(&json!(1)), Some(&json!(1)), Some(&json!(1))]);
    let main = json!({ "spec": { "replicas": 3 }, "status": { "replicas": 5 } });
    let updated = api.merge(&path, main).await.json();
    assert_eq!(
        (
            &updated["metadata"]["generation"],
            &updated["status"]["replicas"]
        ),
        (&json!(2), &json!(1))
    );

    let scale = api.get(&format!("{path}/scale")).await.json();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(3))
    );
    assert_eq!(
        scale["status"],
        json!({ "replicas": 1, "selector": "app=web" })
    );
    // kubectl's PUT of a scale has no Content-Type.
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = json!(5);
    assert_eq!(
        api.put(&format!("{path}/scale"), wanted.clone())
            .await
            .json()["spec"]["replicas"],
        5
    );
    assert_eq!(
        api.put(&format!("{path}/scale"), wanted).await.code,
        StatusCode::CONFLICT
    );
    let patched = api
        .merge(
            &format!("{path}/scale"),
            json!({ "spec": { "replicas": 0 } }),
        )
        .await;
    assert_eq!(patched.json()["spec"]["replicas"], 0);
    assert_eq!(api.get(&path).await.json()["metadata"]["generation"], 4);
    let negative = api
        .merge(
            &format!("{path}/scale"),
            json!({ "spec": { "replicas": -1 } }),
        )
        .await;
    assert_eq!(negative.code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Api::start().await;
    api.create(PODS, pod("p")).await;
    let binding = |node: &str| {
        json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "p" },
                "target": { "kind": "Node", "name": node } })
    };
    let bound = api.post(&format!("{PODS}/p/binding"), binding("n1")).await;
    assert_eq!(
        (bound.code, &bound.json()["status"]),
        (StatusCode::CREATED, &json!("Success"))
    );
    let pod = api.get(&format!("{PODS}/p")).await.json();
    assert_eq!(pod["spec"]["nodeName"], "n1");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    let again = api.post(&format!("{PODS}/p/binding"), binding("n2")).await;
    assert_eq!(again.code, StatusCode::CONFLICT);
    assert!(
        again
            .failure()
            .2
            .ends_with("pod p is already assigned to node \"n1\""),
        "{}",
        again.text
    );
}

#[tokio::test]
async fn both_views_of_an_event() {
    let api = Api::start().await;
    let event = json!({
        "metadata": { "name": "e" },
        "regarding": { "kind": "Pod", "namespace": "default", "name": "p" },
        "reason": "Started", "note": "hello", "type": "Normal", "action": "Start",
        "reportingController": "test", "reportingInstance": "t1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    api.create("/apis/events.k8s.io/v1/namespaces/default/events", event)
        .await;
    let core = api.get("/api/v1/namespaces/default/events/e").await.json();
    assert_eq!(
        (&core["apiVersion"], &core["message"]),
        (&json!("v1"), &json!("hello"))
    );
    assert_eq!(core["involvedObject"]["name"], "p");
    let list = api
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp")
        .await
        .json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let list = api.get("/apis/events.k8s.io/v1/events").await.json();
    assert_eq!(
        (&list["items"][0]["note"], &list["apiVersion"]),
        (&json!("hello"), &json!("events.k8s.io/v1"))
    );
}
