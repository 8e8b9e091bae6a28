//! Get, list, selectors, paging, forms, discovery.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Api, config_map, pod, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: (&str, &str) = (
    "accept",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
);

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_list_is_paged_as_one_snapshot() {
    let api = Api::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.create(MAPS, config_map(name, json!({}))).await;
    }
    let first = api.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(
        (first["kind"].as_str(), names(&first)),
        (Some("ConfigMapList"), vec!["a", "b"])
    );
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What happens between two pages is not seen.
    api.delete(&format!("{MAPS}/c"), json!({})).await;
    api.create(MAPS, config_map("bb", json!({}))).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .json();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = api
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .json();
    assert_eq!(names(&last), ["e"]);
    assert_eq!(last["metadata"].get("continue"), None);
    // kube-rs writes an empty pair.
    assert_eq!(
        names(&api.get(&format!("{MAPS}?&limit=500")).await.json()).len(),
        5
    );
}

#[tokio::test]
async fn an_expired_page_can_be_continued_inconsistently() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.create(MAPS, config_map(name, json!({}))).await;
    }
    let first = api.get(&format!("{MAPS}?limit=1")).await.json();
    api.create(MAPS, config_map("d", json!({}))).await;
    api.store.compact(api.store.revision()).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = api.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!(
        (expired.code, expired.failure().1.as_str()),
        (StatusCode::GONE, "Expired")
    );
    let again = expired.json()["metadata"]["continue"]
        .as_str()
        .unwrap()
        .to_owned();
    let rest = api.get(&format!("{MAPS}?continue={again}")).await.json();
    assert_eq!(names(&rest), ["b", "c", "d"]);
    let bad = api.get(&format!("{MAPS}?continue=junk")).await;
    assert_eq!(bad.code, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn resource_versions_of_lists() {
    let api = Api::start().await;
    let a = version(&api.create(MAPS, config_map("a", json!({}))).await);
    api.create(MAPS, config_map("b", json!({}))).await;
    let list = async |query: String| api.get(&format!("{MAPS}?{query}")).await;
    assert_eq!(
        names(&list("resourceVersion=0".into()).await.json()),
        ["a", "b"]
    );
    assert_eq!(
        names(&list(format!("resourceVersion={a}")).await.json()),
        ["a", "b"]
    );
    let exact = list(format!("resourceVersion={a}&resourceVersionMatch=Exact"))
        .await
        .json();
    assert_eq!((names(&exact), version(&exact)), (vec!["a"], a));
    let future = list("resourceVersion=999".into()).await;
    assert_eq!(
        (future.code, future.headers["retry-after"].to_str().unwrap()),
        (StatusCode::GATEWAY_TIMEOUT, "1")
    );
    assert_eq!(
        future.json()["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    assert_eq!(
        list("resourceVersion=abc".into()).await.code,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        list("resourceVersionMatch=Exact".into()).await.code,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    api.store.compact(api.store.revision()).await.unwrap();
    let gone = list(format!("resourceVersion={a}&resourceVersionMatch=Exact")).await;
    assert_eq!(
        (gone.code, gone.failure().1.as_str()),
        (StatusCode::GONE, "Expired")
    );
}

#[tokio::test]
async fn selectors() {
    let api = Api::start().await;
    api.create(
        MAPS,
        config_map("a", json!({ "app": "web", "tier": "front" })),
    )
    .await;
    api.create(MAPS, config_map("b", json!({ "app": "web" })))
        .await;
    api.create(MAPS, config_map("c", json!({}))).await;
    let select = async |query: &str| {
        let list = api.get(&format!("{MAPS}?{query}")).await.json();
        names(&list).join(" ")
    };
    assert_eq!(select("labelSelector=app%3Dweb").await, "a b");
    assert_eq!(select("labelSelector=app%3Dweb,!tier").await, "b");
    assert_eq!(select("labelSelector=app+notin+(web)").await, "c");
    assert_eq!(select("fieldSelector=metadata.name%3Dc").await, "c");
    assert_eq!(
        select("fieldSelector=metadata.name!%3Dc&labelSelector=app").await,
        "a b"
    );
    let bad = api.get(&format!("{MAPS}?fieldSelector=spec.foo%3D1")).await;
    assert_eq!(
        (bad.code, bad.failure().1.as_str()),
        (StatusCode::BAD_REQUEST, "BadRequest")
    );
    assert!(
        bad.failure()
            .2
            .ends_with("field label not supported: spec.foo"),
        "{}",
        bad.text
    );

    let pods = "/api/v1/namespaces/default/pods";
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n1");
    api.create(pods, bound).await;
    api.create(pods, pod("free")).await;
    let path = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,status.phase!%3DSucceeded";
    assert_eq!(names(&api.get(path).await.json()), ["bound"]);
}

#[tokio::test]
async fn tables_and_metadata() {
    let api = Api::start().await;
    api.create(MAPS, config_map("a", json!({ "app": "web" })))
        .await;
    let table = api.send("GET", MAPS, &[TABLE], "").await.json();
    assert_eq!(
        (table["kind"].as_str(), table["apiVersion"].as_str()),
        (Some("Table"), Some("meta.k8s.io/v1"))
    );
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(
        table["rows"][0]["object"]["metadata"]["labels"]["app"],
        "web"
    );
    let full = api
        .send(
            "GET",
            &format!("{MAPS}/a?includeObject=Object"),
            &[TABLE],
            "",
        )
        .await
        .json();
    assert_eq!(full["rows"][0]["object"]["data"]["key"], "value");
    let accept = (
        "accept",
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    );
    let list = api.send("GET", MAPS, &[accept], "").await.json();
    assert_eq!(
        (list["kind"].as_str(), &list["items"][0]["data"]),
        (Some("PartialObjectMetadataList"), &Value::Null)
    );
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(
        api.send("GET", MAPS, &protobuf, "").await.code,
        StatusCode::NOT_ACCEPTABLE
    );
}

#[tokio::test]
async fn discovery_speaks_the_clients_version() {
    let api = Api::start().await;
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    let ask =
        async |path: &str, accept: String| api.send("GET", path, &[("accept", &accept)], "").await;
    let new = ask("/apis", format!("{v2},{beta},application/json")).await;
    assert_eq!(new.json()["kind"], "APIGroupDiscoveryList");
    assert_eq!(new.headers["content-type"], v2);
    assert_eq!(
        ask("/apis", format!("{beta},application/json"))
            .await
            .json()["kind"],
        "APIGroupList"
    );
    assert_eq!(
        ask("/api", format!("{beta},application/json")).await.json()["kind"],
        "APIVersions"
    );
    let list = api.get("/apis/apps/v1").await.json();
    let found = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|resource| resource["name"] == "deployments/scale");
    assert_eq!(found.unwrap()["kind"], "Scale");
}

#[tokio::test]
async fn openapi_v2_comes_in_two_forms() {
    let api = Api::start().await;
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = api
        .send("GET", "/openapi/v2", &[("accept", protobuf)], "")
        .await;
    assert_eq!(answer.code, 200);
    // Go's parser refuses the old name in an answer.
    assert_eq!(answer.headers["content-type"], protobuf.replace('@', "."));
    assert!(answer.text.starts_with("\n\u{3}2.0"));
    let answer = api.get("/openapi/v2").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json()["swagger"], "2.0");
    let refused = api
        .send("GET", "/openapi/v2", &[("accept", "text/html")], "")
        .await;
    assert_eq!(refused.code, 406);
}

#[tokio::test]
async fn unknown_paths_and_open_ones() {
    let api = Api::start().await;
    for path in [
        "/foo",
        "/apis/none/v1",
        "/api/v1/namespaces/default/foos",
        "/api/v1/pods/x",
        "/",
    ] {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.code, answer.text.as_str()),
            (StatusCode::NOT_FOUND, "404 page not found\n"),
            "{path}"
        );
    }
    let missing = api.get(&format!("{MAPS}/x")).await;
    assert_eq!(
        missing.failure(),
        (404, "NotFound".into(), "configmaps \"x\" not found".into())
    );
    let details = missing.json()["details"].clone();
    assert_eq!(details, json!({ "name": "x", "kind": "configmaps" }));
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(api.get(path).await.text, "ok");
    }
    assert!(
        api.get("/readyz?verbose")
            .await
            .text
            .ends_with("readyz check passed\n")
    );
    let version = api.get("/version").await.json();
    assert_eq!(
        (version["major"].as_str(), version["minor"].as_str()),
        (Some("1"), Some("33"))
    );
    let refused = api.send("POST", "/api/v1/pods", &[], "{}").await;
    assert_eq!(refused.code, StatusCode::METHOD_NOT_ALLOWED);
}
