use super::*;

fn identity() -> Identity {
    Identity {
        name: "n1".to_owned(),
        addresses: vec!["192.168.100.1".parse().unwrap()],
        port: 10250,
    }
}

fn machine() -> Machine {
    Machine {
        cpus: 2,
        memory_kib: 1024,
        kernel: "6.18".to_owned(),
        os_image: "Debian".to_owned(),
        machine_id: "m".to_owned(),
        boot_id: "b".to_owned(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn patch(readiness: &Readiness, node: &Node, now: i64) -> Option<Value> {
    status_patch(&identity(), &machine(), readiness, node, at(now))
}

/// The node after a patch, as the API would keep it.
fn applied(node: &Node, patch: &Value) -> Node {
    let mut value = serde_json::to_value(node).unwrap();
    for (key, field) in patch.as_object().unwrap() {
        value["status"][key] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn condition(node: &Node, kind: &str) -> (String, String, Timestamp) {
    let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
    let since = found.last_transition_time.as_ref().unwrap().0;
    (
        found.status.clone(),
        found.message.clone().unwrap_or_default(),
        since,
    )
}

#[test]
fn nothing_is_sent_while_nothing_changes() {
    let ready = Readiness::of(None);
    let new = new_node(&identity());
    assert_eq!(missing_labels(&identity(), &new), None);
    let first = patch(&ready, &new, 0).unwrap();
    assert_eq!(
        first["capacity"],
        json!({"cpu": "2", "memory": "1024Ki", "pods": "110"})
    );
    assert_eq!(first["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    let node = applied(&new, &first);
    assert_eq!(patch(&ready, &node, 299), None);
    let heartbeat = patch(&ready, &node, 301).unwrap();
    assert_eq!(
        heartbeat.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["conditions"]
    );
    assert_eq!(
        condition(&applied(&node, &heartbeat), "Ready").2,
        at(0),
        "a heartbeat is no transition"
    );
}

#[test]
fn the_network_decides_about_ready() {
    let without = Readiness::of(Some("no CNI config list in /etc/cni/net.d".to_owned()));
    let new = new_node(&identity());
    let node = applied(&new, &patch(&without, &new, 0).unwrap());
    let (status, message, _) = condition(&node, "Ready");
    assert_eq!(status, "False");
    assert!(
        message.contains("cni config uninitialized (no CNI config list in /etc/cni/net.d)"),
        "{message}"
    );
    let node = applied(&node, &patch(&Readiness::of(None), &node, 5).unwrap());
    let (status, message, since) = condition(&node, "Ready");
    assert_eq!(
        (status.as_str(), message.as_str(), since),
        ("True", "seaway agent is posting ready status", at(5))
    );
}

#[test]
fn what_others_write_is_kept_or_corrected() {
    let ready = Readiness::of(None);
    let new = new_node(&identity());
    let mut node = applied(&new, &patch(&ready, &new, 0).unwrap());
    let status = node.status.as_mut().unwrap();
    let conditions = status.conditions.as_mut().unwrap();
    // The lifecycle controller gave us up; another component has a condition of its own.
    for condition in conditions.iter_mut() {
        condition.status = "Unknown".to_owned();
    }
    let mut foreign = conditions[0].clone();
    foreign.type_ = "NetworkUnavailable".to_owned();
    conditions.push(foreign);
    node.metadata.labels = Some([("mine".to_owned(), "yes".to_owned())].into());
    assert_eq!(missing_labels(&identity(), &node).unwrap().len(), 3);
    let node = applied(&node, &patch(&ready, &node, 9).unwrap());
    assert_eq!(condition(&node, "Ready").0, "True");
    assert_eq!(condition(&node, "NetworkUnavailable").0, "Unknown");
}
