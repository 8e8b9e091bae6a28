use serde_json::Value;

use super::*;
use crate::watch::tests::{Answer, Ending, client, end_of_list, event, server};

fn node(name: &str, version: u32, ip: &str, says: Option<&str>) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string(),
            "annotations": {DIRECT_ANSWERS_ANNOTATION: says, "other": "v1"}},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]}})
}

fn answering(nodes: &[(&str, DirectAnswers)]) -> Option<Answering> {
    let of_node = |(ip, says): &(&str, DirectAnswers)| (ip.parse().unwrap(), *says);
    Some(nodes.iter().map(of_node).collect())
}

#[tokio::test(start_paused = true)]
async fn what_nodes_say_is_followed() {
    use DirectAnswers::{All, Begun};
    let events = vec![
        event("ADDED", &node("a", 1, "192.168.77.1", Some("v1"))),
        event("ADDED", &node("b", 2, "fd00:77::2", Some("v1"))),
        event("ADDED", &node("c", 3, "192.168.77.3", None)),
        event("ADDED", &node("d", 4, "192.168.77.4", Some("v2"))),
        event("ADDED", &node("e", 5, "192.168.77.5", Some("v1"))),
        end_of_list(6),
        event("MODIFIED", &node("a", 7, "192.168.77.1", Some("v1-begun"))),
        event("DELETED", &node("e", 8, "192.168.77.5", Some("v1"))),
    ];
    let (client, _) = client(vec![Answer::Events(events, Ending::Open)]);
    let mut known = follow(Source::Kube(server(client)));
    assert_eq!(*known.borrow(), None);
    let last = answering(&[("192.168.77.1", Begun), ("fd00:77::2", All)]);
    known.wait_for(|now| *now == last).await.unwrap();
}

#[test]
fn nothing_is_told_before_all_nodes_are_known_nor_twice() {
    let node = |says| {
        let node = seaway_model::Node {
            name: "a".into(),
            addresses: vec!["192.168.77.1".parse().unwrap()],
            pod_cidrs: Vec::new(),
            zone: None,
            draining: false,
            direct_answers: says,
        };
        InputEvent::Node("a".into(), Some(node))
    };
    let mut known = Known::default();
    assert_eq!(known.absorb(node(DirectAnswers::All)), None);
    let all = answering(&[("192.168.77.1", DirectAnswers::All)]);
    assert_eq!(known.absorb(InputEvent::Synced), all);
    assert_eq!(known.absorb(node(DirectAnswers::All)), None);
    let begun = answering(&[("192.168.77.1", DirectAnswers::Begun)]);
    assert_eq!(known.absorb(node(DirectAnswers::Begun)), begun);
    assert_eq!(known.absorb(node(DirectAnswers::No)), answering(&[]));
    assert_eq!(known.absorb(node(DirectAnswers::No)), None);
    assert_eq!(known.absorb(InputEvent::Node("a".into(), None)), None);
}

#[test]
fn a_node_is_patched_where_it_says_something_else() {
    use DirectAnswers::{All, Begun, No};
    for (there, says, expected) in [
        (None, All, Some(json!("v1"))),
        (Some("v1"), All, None),
        (Some("v1"), Begun, Some(json!("v1-begun"))),
        (Some("v1-begun"), No, Some(Value::Null)),
        (Some("v1-begun"), All, Some(json!("v1"))),
        (Some("v9"), No, Some(Value::Null)),
        (None, Begun, None),
        (None, No, None),
    ] {
        let expected = expected.map(
            |value| json!({"metadata": {"annotations": {"seaway.dev/direct-answers": value}}}),
        );
        assert_eq!(patch(there, says), expected, "{there:?} {says:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_status_is_asked_for() {
    let object = node("n1", 1, "192.168.77.1", Some("v1"));
    for (says, asked) in [
        (DirectAnswers::All, vec!["/api/v1/nodes/n1"]),
        (
            DirectAnswers::No,
            vec!["/api/v1/nodes/n1", "/api/v1/nodes/n1/status?"],
        ),
    ] {
        let answers = [(); 2].map(|()| Answer::Status(200, object.clone()));
        let (client, requests) = client(answers.into());
        say(&client, "n1", says).await.unwrap();
        assert_eq!(*requests.lock().unwrap(), asked);
    }
}
