//! The follower against a scripted API server: answers in order, requests written down.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::{NodeScope, Server, Source, Wants, stream};

/// One scripted answer.
pub(crate) enum Answer {
    /// The connection fails.
    Refused,
    Status(u16, Value),
    /// Watch events; the stream then ends, or stays open without a word.
    Events(Vec<Value>, Ending),
}

#[derive(Clone, Copy)]
pub(crate) enum Ending {
    Closed,
    Open,
}

pub(crate) type Requests = Arc<Mutex<Vec<String>>>;

/// Follows Nodes (or Services, to see selectors) against `script`; further requests are refused.
fn start(script: Vec<Answer>, wants: Wants) -> (Receiver<InputEvent>, Requests) {
    let (client, requests) = client(script);
    (stream(Source::Kube(server(client)), wants), requests)
}

/// What such a client talks to.
pub(crate) fn server(client: Client) -> Server {
    let url = "https://api.test:6443".into();
    Server { client, url }
}

/// A client of a server that answers so.
pub(crate) fn client(script: Vec<Answer>) -> (Client, Requests) {
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let requests = Requests::default();
    let written = requests.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        written.lock().unwrap().push(request.uri().to_string());
        let answer = script.lock().unwrap().pop_front();
        async move {
            match answer {
                None | Some(Answer::Refused) => Err(std::io::Error::other("connection refused")),
                Some(Answer::Status(code, value)) => Ok(reply(code, vec![value], Ending::Closed)),
                Some(Answer::Events(events, ending)) => Ok(reply(200, events, ending)),
            }
        }
    });
    (Client::new(service, "default"), requests)
}

fn reply(code: u16, lines: Vec<Value>, ending: Ending) -> Response<BoxBody<Bytes, Infallible>> {
    let lines = lines
        .into_iter()
        .map(|line| Ok(http_body::Frame::data(Bytes::from(format!("{line}\n")))));
    let lines = futures::stream::iter(lines);
    let body = match ending {
        Ending::Closed => BodyExt::boxed(StreamBody::new(lines)),
        Ending::Open => BodyExt::boxed(StreamBody::new(lines.chain(futures::stream::pending()))),
    };
    Response::builder().status(code).body(body).unwrap()
}

fn all_nodes() -> Wants {
    Wants {
        nodes: NodeScope::All,
        ..Wants::default()
    }
}

fn node(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

pub(crate) fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

pub(crate) fn end_of_list(version: u32) -> Value {
    event(
        "BOOKMARK",
        &json!({"kind": "Node", "apiVersion": "v1", "metadata": {
            "resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}),
    )
}

fn page(items: &[Value], version: u32, next: Option<&str>) -> Answer {
    let list = json!({"kind": "NodeList", "apiVersion": "v1", "items": items,
        "metadata": {"resourceVersion": version.to_string(), "continue": next}});
    Answer::Status(200, list)
}

fn failure(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "reason": "Any", "metadata": {}})
}

async fn take(events: &mut Receiver<InputEvent>, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(match events.recv().await.unwrap() {
            InputEvent::Node(name, Some(_)) => format!("+{name}"),
            InputEvent::Node(name, None) => format!("-{name}"),
            InputEvent::Synced => "synced".to_owned(),
            other => format!("{other:?}"),
        });
    }
    taken
}

fn queries(requests: &Requests) -> Vec<String> {
    requests.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn streams_the_list_and_resumes_where_it_was() {
    let (mut events, requests) = start(
        vec![
            Answer::Events(
                vec![
                    event("ADDED", &node("a", 3)),
                    event("ADDED", &node("b", 4)),
                    end_of_list(5),
                    event("DELETED", &node("a", 6)),
                ],
                Ending::Closed,
            ),
            Answer::Refused,
            Answer::Events(vec![event("ADDED", &node("c", 7))], Ending::Open),
        ],
        all_nodes(),
    );
    assert_eq!(
        take(&mut events, 5).await,
        ["+a", "+b", "synced", "-a", "+c"]
    );
    let requests = queries(&requests);
    assert!(
        requests[0].contains("sendInitialEvents=true"),
        "{requests:?}"
    );
    for resumed in &requests[1..] {
        assert!(resumed.contains("resourceVersion=6"), "{requests:?}");
        assert!(!resumed.contains("sendInitialEvents=true"), "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_server_that_is_not_up_yet() {
    let up = Answer::Events(vec![end_of_list(1)], Ending::Open);
    let script = vec![
        Answer::Refused,
        Answer::Status(503, failure(503, "starting")),
        up,
    ];
    let (mut events, requests) = start(script, all_nodes());
    assert_eq!(take(&mut events, 1).await, ["synced"]);
    assert_eq!(queries(&requests).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn lists_page_by_page_where_streaming_is_refused() {
    let script = vec![
        Answer::Status(
            422,
            failure(422, "sendInitialEvents is forbidden for watch"),
        ),
        page(&[node("a", 1)], 9, Some("more")),
        page(&[node("b", 2)], 9, None),
        Answer::Events(vec![event("MODIFIED", &node("b", 10))], Ending::Open),
    ];
    let (mut events, requests) = start(script, all_nodes());
    assert_eq!(take(&mut events, 4).await, ["+a", "+b", "synced", "+b"]);
    let requests = queries(&requests);
    assert!(requests[2].contains("continue=more"), "{requests:?}");
    assert!(requests[3].contains("resourceVersion=9"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn lists_page_by_page_where_streaming_is_ignored() {
    let script = vec![
        Answer::Events(vec![event("ADDED", &node("a", 1))], Ending::Open),
        page(&[node("b", 2)], 9, None),
        Answer::Events(vec![], Ending::Open),
    ];
    let (mut events, _) = start(script, all_nodes());
    assert_eq!(take(&mut events, 4).await, ["+a", "+b", "-a", "synced"]);
}

/// Both forms of "too old", and a server that lost its newest revisions: list again, delete what vanished, and
/// do not report in-sync a second time.
#[tokio::test(start_paused = true)]
async fn lists_again_when_the_position_is_lost() {
    let lost = [
        Answer::Events(
            vec![event("ERROR", &failure(410, "too old"))],
            Ending::Closed,
        ),
        Answer::Status(410, failure(410, "too old")),
        Answer::Status(
            504,
            failure(504, "Too large resource version: 9, current: 2"),
        ),
    ];
    for lost in lost {
        let (mut events, requests) = start(
            vec![
                Answer::Events(
                    vec![
                        event("ADDED", &node("a", 3)),
                        event("ADDED", &node("b", 4)),
                        end_of_list(9),
                    ],
                    Ending::Closed,
                ),
                lost,
                Answer::Events(
                    vec![event("ADDED", &node("b", 4)), end_of_list(20)],
                    Ending::Open,
                ),
            ],
            all_nodes(),
        );
        assert_eq!(
            take(&mut events, 5).await,
            ["+a", "+b", "synced", "+b", "-a"]
        );
        assert!(queries(&requests)[2].contains("sendInitialEvents=true"));
        let quiet = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn asks_with_the_selectors_of_kube_proxy_and_syncs_once_for_all_kinds() {
    let empty = || Answer::Events(vec![end_of_list(1)], Ending::Open);
    let wants = Wants {
        services: true,
        slices: true,
        nodes: NodeScope::One("n1".into()),
    };
    let (mut events, requests) = start(vec![empty(), empty(), empty()], wants);
    assert_eq!(take(&mut events, 1).await, ["synced"]);
    let mut requests = queries(&requests);
    requests.sort();
    let starts = [
        "/api/v1/nodes?&watch=true&timeoutSeconds=120&fieldSelector=metadata.name%3Dn1&",
        "/api/v1/services?&watch=true&timeoutSeconds=120&fieldSelector=spec.clusterIP%21%3DNone&\
         labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&",
        "/apis/discovery.k8s.io/v1/endpointslices?&watch=true&timeoutSeconds=120&\
         labelSelector=%21service.kubernetes.io%2Fheadless&",
    ];
    for (request, start) in requests.iter().zip(starts) {
        assert!(request.starts_with(start), "{request}");
    }
}
