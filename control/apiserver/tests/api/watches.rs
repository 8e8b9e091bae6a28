//! Watches, frame by frame.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::support::{Api, config_map, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn event(kind: &str, name: &str, version: u64) -> (String, String, u64) {
    (kind.into(), name.into(), version)
}

#[tokio::test]
async fn from_nothing_then_live() {
    let api = Api::start().await;
    let a = version(&api.create(MAPS, config_map("a", json!({}))).await);
    let mut frames = api.watch(&format!("{MAPS}?watch=true"), &[]).await;
    assert_eq!(frames.event().await, event("ADDED", "a", a));
    let changed = api
        .merge(&format!("{MAPS}/a"), json!({ "data": { "x": "y" } }))
        .await
        .json();
    assert_eq!(
        frames.event().await,
        event("MODIFIED", "a", version(&changed))
    );
    // A write that changes nothing makes no version and no event.
    let same = api
        .merge(&format!("{MAPS}/a"), json!({ "data": { "x": "y" } }))
        .await
        .json();
    assert_eq!(version(&same), version(&changed));
    api.create(
        "/api/v1/namespaces/kube-system/configmaps",
        config_map("elsewhere", json!({})),
    )
    .await;
    frames.quiet().await;
    api.delete(&format!("{MAPS}/a"), json!({})).await;
    // A deletion has a version of its own, or clients that resume would see it twice.
    assert_eq!(
        frames.event().await,
        event("DELETED", "a", api.store.revision())
    );
}

#[tokio::test]
async fn strictly_after_a_version_and_in_order() {
    let api = Api::start().await;
    let a = version(&api.create(MAPS, config_map("a", json!({}))).await);
    for name in ["b", "c"] {
        api.create(MAPS, config_map(name, json!({}))).await;
    }
    let mut frames = api
        .watch(&format!("{MAPS}?watch=1&resourceVersion={a}"), &[])
        .await;
    assert_eq!(frames.event().await.1, "b");
    assert_eq!(frames.event().await.1, "c");
    frames.quiet().await;
    let mut future = api
        .watch(&format!("{MAPS}?watch=1&resourceVersion=99999"), &[])
        .await;
    future.quiet().await;
}

#[tokio::test]
async fn too_old_is_told_in_the_stream() {
    let api = Api::start().await;
    for name in ["a", "b"] {
        api.create(MAPS, config_map(name, json!({}))).await;
    }
    let now = api.store.revision();
    api.store.compact(now).await.unwrap();
    let mut frames = api
        .watch(&format!("{MAPS}?watch=1&resourceVersion=1"), &[])
        .await;
    let frame = frames.next().await.unwrap();
    assert_eq!(
        (frame["type"].as_str(), frame["object"]["code"].as_u64()),
        (Some("ERROR"), Some(410))
    );
    assert_eq!(frame["object"]["reason"], "Expired");
    assert_eq!(
        frame["object"]["message"],
        format!("too old resource version: 1 ({now})")
    );
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let api = Api::start().await;
    let mut frames = api
        .watch(&format!("{MAPS}?watch=1&labelSelector=app%3Dweb"), &[])
        .await;
    api.create(MAPS, config_map("a", json!({ "app": "db" })))
        .await;
    let path = format!("{MAPS}/a");
    let enters = api
        .merge(&path, json!({ "metadata": { "labels": { "app": "web" } } }))
        .await
        .json();
    assert_eq!(frames.event().await, event("ADDED", "a", version(&enters)));
    let leaves = api
        .merge(&path, json!({ "metadata": { "labels": { "app": "db" } } }))
        .await
        .json();
    let frame = frames.next().await.unwrap();
    assert_eq!(frame["type"], "DELETED");
    // Its last matching state, at the revision of the change.
    assert_eq!(frame["object"]["metadata"]["labels"]["app"], "web");
    assert_eq!(version(&frame["object"]), version(&leaves));
    api.delete(&path, json!({})).await;
    frames.quiet().await;
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let api = Api::start().await;
    let a = version(&api.create(MAPS, config_map("a", json!({}))).await);
    let common = format!("{MAPS}?watch=1&allowWatchBookmarks=true");
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    for query in [
        common.clone(),
        format!("{common}&resourceVersion=0"),
        format!("{common}&{streaming}"),
        format!("{common}&{streaming}&resourceVersion=0"),
        format!("{common}&{streaming}&resourceVersion=1"),
    ] {
        let mut frames = api.watch(&query, &[]).await;
        assert_eq!(frames.event().await, event("ADDED", "a", a), "{query}");
        let frame = frames.next().await.unwrap();
        assert_eq!(frame["type"], "BOOKMARK", "{query}");
        let object = &frame["object"];
        assert_eq!(
            (object["kind"].as_str(), object["apiVersion"].as_str()),
            (Some("ConfigMap"), Some("v1"))
        );
        assert_eq!(
            object["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        assert!(version(object) >= a);
        frames.quiet().await;
    }
    // Not asked for: not sent.
    let mut silent = api.watch(&format!("{MAPS}?watch=1&{streaming}"), &[]).await;
    assert_eq!(silent.event().await.0, "ADDED");
    silent.quiet().await;
}

#[tokio::test]
async fn options_that_exclude_each_other() {
    let api = Api::start().await;
    for query in [
        "sendInitialEvents=true",
        "sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1",
        "resourceVersionMatch=NotOlderThan&resourceVersion=1",
    ] {
        let answer = api.get(&format!("{MAPS}?watch=1&{query}")).await;
        assert_eq!(answer.code, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    let answer = api.get(&format!("{MAPS}?sendInitialEvents=true")).await;
    assert_eq!(answer.code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn bookmarks_carry_the_present() {
    let api = Api::with(|config| config.bookmark_interval = Duration::from_millis(100)).await;
    let from = api.store.revision();
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={from}");
    let mut frames = api.watch(&path, &[]).await;
    assert_eq!(frames.event().await, event("BOOKMARK", "", from));
    // Something elsewhere: the next bookmark lets an idle watcher keep up.
    api.create(
        "/api/v1/namespaces/default/serviceaccounts",
        json!({ "metadata": { "name": "x" } }),
    )
    .await;
    let mut seen = frames.event().await;
    if seen.2 == from {
        seen = frames.event().await;
    }
    assert_eq!(seen, event("BOOKMARK", "", from + 1));
}

#[tokio::test]
async fn a_timeout_ends_the_stream_with_a_last_bookmark() {
    let api = Api::start().await;
    let path =
        format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion=1&timeoutSeconds=3");
    let started = std::time::Instant::now();
    let mut frames = api.watch(&path, &[]).await;
    assert_eq!(frames.event().await.0, "BOOKMARK");
    assert_eq!(frames.next().await, None);
    assert!(
        (2.5..10.0).contains(&started.elapsed().as_secs_f64()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn tables_come_with_columns_once() {
    let api = Api::start().await;
    api.create(MAPS, config_map("a", json!({}))).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut frames = api.watch(&format!("{MAPS}?watch=1"), &accept).await;
    let first = frames.next().await.unwrap()["object"].take();
    assert_eq!(
        (
            first["kind"].as_str(),
            first["rows"][0]["cells"][0].as_str()
        ),
        (Some("Table"), Some("a"))
    );
    assert_eq!(first["columnDefinitions"][0]["name"], "Name");
    api.create(MAPS, config_map("b", json!({}))).await;
    let second = frames.next().await.unwrap()["object"].take();
    assert_eq!(
        (&second["columnDefinitions"], &second["rows"][0]["cells"][0]),
        (&json!(null), &json!("b"))
    );
}

#[tokio::test]
async fn one_object_by_path() {
    let api = Api::start().await;
    for name in ["a", "b"] {
        api.create(MAPS, config_map(name, json!({}))).await;
    }
    let mut frames = api.watch(&format!("{MAPS}/b?watch=1"), &[]).await;
    assert_eq!(frames.event().await.1, "b");
    frames.quiet().await;
}
