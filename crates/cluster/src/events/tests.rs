use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

fn finding(name: &str, message: &str) -> Finding {
    Finding {
        object: ObjectRef::Service(ObjectKey::new("default", name)),
        reason: "CannotUseField",
        message: message.to_owned(),
    }
}

#[test]
fn a_finding_is_repeated_only_after_a_while() {
    let mut throttle = Throttle::default();
    let start = Instant::now();
    let web = finding("web", "a");
    assert_eq!(throttle.admit(&web, start), Admission::Send);
    let soon = start + REPEAT_AFTER - Duration::from_secs(1);
    assert_eq!(throttle.admit(&web, soon), Admission::Told);
    assert_eq!(throttle.admit(&finding("web", "b"), soon), Admission::Send);
    let later = start + REPEAT_AFTER;
    assert_eq!(throttle.admit(&web, later), Admission::Send);
}

#[test]
fn a_flood_is_cut_off_and_recovers() {
    let mut throttle = Throttle::default();
    let start = Instant::now();
    let sent = (0..100)
        .filter(|i| throttle.admit(&finding(&i.to_string(), ""), start) == Admission::Send)
        .count();
    assert_eq!(sent, 25);
    let later = start + Duration::from_secs(10);
    let sent = (200..300)
        .filter(|i| throttle.admit(&finding(&i.to_string(), ""), later) == Admission::Send)
        .count();
    assert_eq!(sent, 2);
}

#[test]
fn what_is_remembered_has_a_limit() {
    let mut throttle = Throttle::default();
    let start = Instant::now();
    for i in 0..10_000_u32 {
        let now = start + Duration::from_secs(10) * i;
        throttle.admit(&finding(&i.to_string(), ""), now);
    }
    assert!(throttle.told.len() <= REMEMBERED, "{}", throttle.told.len());
}

#[test]
fn an_event_names_object_node_and_finding() {
    let regarding = ObjectReference {
        name: Some("web".into()),
        namespace: Some("default".into()),
        ..ObjectReference::default()
    };
    // A character of two bytes across the limit.
    let long = format!("{}ä", "x".repeat(NOTE_BYTES - 1));
    let event = event(
        &finding("web", &long),
        regarding,
        "n1",
        Timestamp::from_second(1).unwrap(),
    );
    assert_eq!(event.metadata.name.as_deref(), Some("web.3b9aca00"));
    assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(event.reporting_instance.as_deref(), Some("n1"));
    assert_eq!(event.note.unwrap(), "x".repeat(NOTE_BYTES - 1));
}

/// What was asked of the API: method, path and body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An API that has every object but the Service `gone`, and takes every Event.
fn api() -> (Client, Asked) {
    let asked = Asked::default();
    let writing = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = writing.clone();
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let sent = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, answer) = if line.starts_with("POST") {
                (201, sent.clone())
            } else if line.ends_with("/gone") {
                (
                    404,
                    json!({"kind": "Status", "status": "Failure", "code": 404}),
                )
            } else {
                (200, json!({"metadata": {"name": "web", "uid": "u-1"}}))
            };
            asked.lock().unwrap().push((line, sent));
            let body = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
            Ok::<_, std::io::Error>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (Client::new(service, "default"), asked)
}

#[tokio::test]
async fn an_event_is_about_the_object_with_its_uid_and_only_once() {
    let (client, asked) = api();
    let mut recorder = EventRecorder::start(client, "n1");
    let mut warn = |object: ObjectRef| {
        assert!(recorder.warn(
            object,
            "CannotUseField",
            "spec.x: no".into(),
            Instant::now()
        ));
    };
    let service = |name: &str| ObjectRef::Service(ObjectKey::new("shop", name));
    warn(service("web"));
    warn(service("web"));
    warn(service("gone"));
    warn(ObjectRef::Node("n1".into()));
    let events = loop {
        let asked = asked.lock().unwrap().clone();
        let events: Vec<_> = asked
            .iter()
            .filter(|(line, _)| line.starts_with("POST"))
            .cloned()
            .collect();
        if events.len() == 3 {
            break events;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let (line, event) = &events[0];
    assert_eq!(line, "POST /apis/events.k8s.io/v1/namespaces/shop/events");
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "u-1"})
    );
    for (field, value) in [
        ("type", "Warning"),
        ("reason", "CannotUseField"),
        ("note", "spec.x: no"),
        ("reportingController", "seaway-proxy"),
        ("reportingInstance", "n1"),
    ] {
        assert_eq!(event[field], json!(value), "{field}");
    }
    // Of an object that is gone meanwhile the Event has no uid.
    assert_eq!(events[1].1["regarding"]["name"], json!("gone"));
    assert_eq!(events[1].1["regarding"].get("uid"), None);
    let (line, event) = &events[2];
    assert_eq!(
        line,
        "POST /apis/events.k8s.io/v1/namespaces/default/events"
    );
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u-1"})
    );
}
