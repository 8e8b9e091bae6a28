use serde_json::{Value, json};

use super::*;
use crate::watch::tests::{Answer, Ending, client, end_of_list, event};

fn pod(name: &str, version: u32, ips: &[&str]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string()},
        "status": {"podIPs": ips}})
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn addresses_of_pods_come_and_go() {
    let first = vec![
        event("ADDED", &pod("a", 1, &["10.244.1.5", "fd00::5"])),
        event("ADDED", &pod("b", 2, &[])),
        end_of_list(3),
        event("MODIFIED", &pod("b", 4, &["10.244.1.6", "none"])),
    ];
    // After a lost connection a is not mentioned any more.
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "message": "too old",
        "reason": "Expired", "metadata": {}});
    let again = vec![
        event("ADDED", &pod("b", 4, &["10.244.1.6"])),
        end_of_list(9),
    ];
    let (client, requests) = client(vec![
        Answer::Events(first, Ending::Closed),
        Answer::Status(410, gone),
        Answer::Events(again, Ending::Open),
    ]);
    let mut known = addresses(client, "n1", "seaway.dev/sockets=untranslated");
    for expected in [
        &["10.244.1.5", "fd00::5", "10.244.1.6"][..],
        &["10.244.1.6"],
    ] {
        let expected = ips(expected);
        known.wait_for(|now| *now == expected).await.unwrap();
    }
    let requests = requests.lock().unwrap();
    for selector in [
        "fieldSelector=spec.nodeName%3Dn1",
        "labelSelector=seaway.dev%2Fsockets%3Duntranslated",
    ] {
        assert!(requests[0].contains(selector), "{requests:?}");
    }
}

#[test]
fn one_that_loses_its_label_is_gone() {
    let mut known = Known::default();
    let pod = |ips: &[&str]| -> Pod { serde_json::from_value(pod("a", 1, ips)).unwrap() };
    known.absorb(Event::Apply(pod(&["10.244.1.5"])));
    assert_eq!(known.addresses(), ips(&["10.244.1.5"]));
    known.absorb(Event::Delete(pod(&["10.244.1.5"])));
    assert_eq!(known.addresses(), BTreeSet::new());
}
