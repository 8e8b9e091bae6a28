use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

#[expect(
    clippy::needless_pass_by_value,
    reason = "cases read better with values in place"
)]
fn pod(spec: Value) -> (Value, Vec<String>) {
    let mut object =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
    POD.default(&mut object);
    POD.prepare_create(&mut object);
    let errors = POD
        .validate(&object, None)
        .iter()
        .map(ToString::to_string)
        .collect();
    (object, errors)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "cases read better with values in place"
)]
fn word(status: Value) -> (String, String, String) {
    let mut object = json!({"metadata": {"name": "web"}, "status": status,
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
    if let Some(when) = status_deletion(&mut object) {
        object["metadata"]["deletionTimestamp"] = when;
    }
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let row = POD.row(&object, now);
    let cell = |i: usize| row[i].as_str().unwrap().to_owned();
    (cell(1), cell(2), cell(3))
}

fn status_deletion(object: &mut Value) -> Option<Value> {
    object["status"].as_object_mut()?.remove("deleted")
}

#[test]
fn defaults_are_upstreams() {
    let (object, errors) = pod(
        json!({"containers": [{"name": "c", "image": "a/b:v1", "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}]}),
    );
    assert_eq!(errors, Vec::<String>::new());
    let expected = json!({"containers": [{"name": "c", "image": "a/b:v1", "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {},
            "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
        "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        "volumes": [{"name": "v", "emptyDir": {}}]});
    assert_eq!(object["spec"], expected);
    assert_eq!(
        object["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
}

#[test]
fn bad_pods_are_told_which_field_and_why() {
    let good = json!({"name": "c", "image": "i"});
    let cases = [
        (json!({}), "spec.containers: Required value"),
        (
            json!({"containers": [{"name": "c"}]}),
            "spec.containers[0].image: Required value",
        ),
        (
            json!({"containers": [good, good]}),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            json!({"containers": [good], "restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \
             \"Never\"",
        ),
        (
            json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            json!({"containers": [{"name": "c", "image": "i", "readinessProbe": {}}]}),
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 70000}]}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(pod(spec.clone()).1, [expected], "{spec}");
    }
}

#[test]
fn a_pod_changes_only_where_it_may() {
    let (old, _) = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "j".into();
    assert!(POD.validate(&new, Some(&old)).is_empty());
    new["spec"]["containers"][0]["command"] = json!(["x"]);
    let error = POD.validate(&new, Some(&old)).remove(0).to_string();
    assert!(
        error.starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{error}"
    );
}

#[test]
fn binding_happens_once() {
    let (mut object, _) = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    let now = Timestamp::UNIX_EPOCH;
    bind(&mut object, &binding, now).unwrap();
    assert_eq!(object["spec"]["nodeName"], "n1");
    assert_eq!(object["status"]["conditions"][0]["type"], "PodScheduled");
    let error = bind(&mut object, &binding, now).unwrap_err();
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on pods \"web\": pod web is already assigned to node \"n1\""
    );
}

#[test]
fn the_status_column_says_what_the_pod_is_doing() {
    let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let crashing = json!({"name": "b", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}});
    let ended = |code: i64, reason: &str| {
        json!({"name": "a", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "reason": reason}}})
    };
    let cases = [
        (json!({"phase": "Pending"}), ("0/2", "Pending", "0")),
        (
            json!({"phase": "Running", "containerStatuses": [running, running]}),
            ("2/2", "Running", "0"),
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, crashing]}),
            ("1/2", "CrashLoopBackOff", "3 (5m ago)"),
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running], "deleted": "2026-01-01T00:59:00Z"}),
            ("1/2", "Terminating", "0"),
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}),
            ("0/2", "Completed", "0"),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended(1, "Error")]}),
            ("0/2", "Error", "0"),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended(7, "")]}),
            ("0/2", "ExitCode:7", "0"),
        ),
        (
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running]}),
            ("1/2", "NotReady", "0"),
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            ("0/2", "Init:0/1", "0"),
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}),
            ("0/2", "Init:Error", "1"),
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted"}),
            ("0/2", "Evicted", "0"),
        ),
    ];
    for (status, (ready, text, restarts)) in cases {
        let expected = (ready.to_owned(), text.to_owned(), restarts.to_owned());
        assert_eq!(word(status.clone()), expected, "{status}");
    }
}
