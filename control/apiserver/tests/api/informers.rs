//! kube-rs informers, in process and over TLS.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api as Client, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Config, Event};
use kube::{ResourceExt, runtime::WatchStreamExt};
use serde_json::{from_value, json};

use crate::support::{Api, PATIENCE, Served, config_map};

type Events<'a> = std::pin::Pin<&'a mut dyn Stream<Item = watcher::Result<Event<ConfigMap>>>>;

/// The next event, as text.
async fn next(events: &mut Events<'_>) -> String {
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("an event in time")
        .expect("a stream");
    match event.expect("no error") {
        Event::Init => "init".into(),
        Event::InitApply(object) => format!("init {}", object.name_any()),
        Event::InitDone => "done".into(),
        Event::Apply(object) => format!("apply {}", object.name_any()),
        Event::Delete(object) => format!("delete {}", object.name_any()),
    }
}

async fn create(client: &Client<ConfigMap>, name: &str) {
    let object = from_value(config_map(name, json!({}))).unwrap();
    client
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

#[tokio::test]
async fn list_and_watch_and_streaming_list() {
    let api = Api::start().await;
    let client = kube::Client::new(api.server.in_process_client(), "default");
    let maps: Client<ConfigMap> = Client::default_namespaced(client);
    create(&maps, "a").await;
    create(&maps, "b").await;
    for config in [
        Config::default().page_size(1),
        Config::default().streaming_lists(),
    ] {
        let stream = pin!(watcher::watcher(maps.clone(), config));
        let mut events: Events<'_> = stream;
        for expected in ["init", "init a", "init b", "done"] {
            assert_eq!(next(&mut events).await, expected);
        }
        create(&maps, "c").await;
        assert_eq!(next(&mut events).await, "apply c");
        maps.delete("c", &DeleteParams::default()).await.unwrap();
        assert_eq!(next(&mut events).await, "delete c");
    }
}

#[tokio::test]
async fn a_watch_whose_history_is_gone_lists_again() {
    let api = Api::start().await;
    let client = kube::Client::new(api.server.in_process_client(), "default");
    let maps: Client<ConfigMap> = Client::default_namespaced(client);
    create(&maps, "a").await;
    // Watches end every second; the history goes meanwhile.
    let config = Config::default().timeout(1);
    let stream = pin!(watcher::watcher(maps.clone(), config).default_backoff());
    let mut events: Events<'_> = stream;
    for expected in ["init", "init a", "done"] {
        assert_eq!(next(&mut events).await, expected);
    }
    for name in ["b", "c"] {
        create(&maps, name).await;
    }
    assert_eq!(next(&mut events).await, "apply b");
    assert_eq!(next(&mut events).await, "apply c");
    let lists = maps.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(
        (lists.items.len(), lists.metadata.remaining_item_count),
        (1, Some(2))
    );
    let patch = json!({ "metadata": { "labels": { "x": "y" } } });
    maps.patch("a", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    assert_eq!(next(&mut events).await, "apply a");
}

#[tokio::test]
async fn a_restart_of_the_server_is_no_relist() {
    let mut served = Served::start().await;
    let maps: Client<ConfigMap> = Client::default_namespaced(served.client().await);
    create(&maps, "a").await;
    let stream = pin!(watcher::watcher(maps.clone(), Config::default()));
    let mut events: Events<'_> = stream;
    for expected in ["init", "init a", "done"] {
        assert_eq!(next(&mut events).await, expected);
    }
    served.restart().await;
    let maps: Client<ConfigMap> = Client::default_namespaced(served.client().await);
    create(&maps, "b").await;
    // The informer meets a closed connection, comes back with the version it had, and misses nothing.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let event = loop {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no event after the restart"
        );
        match tokio::time::timeout(PATIENCE, events.next())
            .await
            .unwrap()
            .unwrap()
        {
            Ok(event) => break event,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert!(
        matches!(&event, Event::Apply(object) if object.name_any() == "b"),
        "{event:?}"
    );
    served.stop().await;
}
