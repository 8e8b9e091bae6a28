use expect_test::expect;

use super::super::facts::{Failure, Running, StartFailure};
use super::super::view::view;
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn make_pod(spec: &Value, status: &Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1"},
        "spec": {"containers": [{"name": "web", "image": "seaway.dev/echo"}]},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn facts(ready_sandbox: bool, web: ContainerFacts) -> Facts {
    Facts {
        sandbox: if ready_sandbox {
            Sandbox::Ready {
                ips: vec!["10.244.1.5".parse().unwrap()],
            }
        } else {
            Sandbox::default()
        },
        containers: [("web".to_owned(), web)].into(),
        ..Facts::default()
    }
}

fn running(ready: bool) -> ContainerFacts {
    ContainerFacts {
        attempt: 1,
        running: Some(Running {
            started_at: at(1),
            ready,
            signalled_at: None,
            killed: false,
        }),
        ..ContainerFacts::default()
    }
}

fn exit(code: i32) -> Exit {
    Exit {
        code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: None,
        started_at: at(1),
        finished_at: at(5),
    }
}

fn make(pod: &Pod, facts: &Facts, sent: Option<&Value>, now: i64) -> Value {
    status(&Input {
        pod,
        view: &view(pod, false),
        facts,
        node_ips: &["192.168.100.1".parse().unwrap()],
        sent,
        now: at(now),
    })
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let all = status["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == kind).unwrap()
}

#[test]
fn a_running_pod_as_kubectl_sees_it() {
    let pod = make_pod(&json!({}), &json!({"phase": "Pending"}));
    let status = make(&pod, &facts(true, running(true)), None, 9);
    expect![[r#"
        {
          "conditions": [
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2023-11-14T22:13:29Z",
              "status": "True",
              "type": "PodReadyToStartContainers"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2023-11-14T22:13:29Z",
              "status": "True",
              "type": "Initialized"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2023-11-14T22:13:29Z",
              "status": "True",
              "type": "Ready"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2023-11-14T22:13:29Z",
              "status": "True",
              "type": "ContainersReady"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2023-11-14T22:13:29Z",
              "status": "True",
              "type": "PodScheduled"
            }
          ],
          "containerStatuses": [
            {
              "containerID": "seaway://u1/web/1",
              "image": "seaway.dev/echo",
              "imageID": "",
              "lastState": {},
              "name": "web",
              "ready": true,
              "restartCount": 0,
              "started": true,
              "state": {
                "running": {
                  "startedAt": "2023-11-14T22:13:21Z"
                }
              }
            }
          ],
          "hostIP": "192.168.100.1",
          "hostIPs": [
            {
              "ip": "192.168.100.1"
            }
          ],
          "phase": "Running",
          "podIP": "10.244.1.5",
          "podIPs": [
            {
              "ip": "10.244.1.5"
            }
          ],
          "startTime": "2023-11-14T22:13:29Z"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&status).unwrap());
}

#[test]
fn transition_times_stay_while_nothing_changes() {
    let pod = make_pod(
        &json!({}),
        &json!({"phase": "Pending", "startTime": "2023-11-14T22:00:00Z"}),
    );
    let first = make(&pod, &facts(true, running(false)), None, 10);
    assert_eq!(first["startTime"], "2023-11-14T22:00:00Z");
    let ready = condition(&first, "Ready");
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("False"), &json!("ContainersNotReady"))
    );
    assert_eq!(ready["message"], "containers with unready status: [web]");
    assert_eq!(
        make(&pod, &facts(true, running(false)), Some(&first), 20),
        first
    );
    let then = make(&pod, &facts(true, running(true)), Some(&first), 30);
    assert_eq!(
        condition(&then, "Ready")["lastTransitionTime"],
        rfc3339(at(30))
    );
    assert_eq!(
        condition(&then, "PodScheduled")["lastTransitionTime"],
        rfc3339(at(10))
    );
}

#[test]
fn waiting_reasons() {
    let pod = make_pod(&json!({}), &json!({}));
    let crashing = ContainerFacts {
        attempt: 3,
        exit: Some(exit(1)),
        last_exit: Some(exit(2)),
        streak: 3,
        ..ContainerFacts::default()
    };
    let loop_back = make(&pod, &facts(true, crashing.clone()), None, 6);
    let web = &loop_back["containerStatuses"][0];
    assert_eq!(web["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(
        web["state"]["waiting"]["message"],
        "back-off 20s restarting failed container=web pod=web-1_shop"
    );
    assert_eq!(
        (
            &web["restartCount"],
            &web["lastState"]["terminated"]["exitCode"]
        ),
        (&json!(2), &json!(1))
    );
    assert_eq!(loop_back["phase"], "Running");

    let over = make(&pod, &facts(true, crashing), None, 30);
    assert_eq!(
        over["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        1
    );

    let refused = ContainerFacts {
        start_failure: Some(StartFailure {
            reason: "ErrImageNeverPull".to_owned(),
            failure: Failure {
                message: "no image".to_owned(),
                at: at(0),
                attempts: 1,
            },
        }),
        ..ContainerFacts::default()
    };
    let refused = make(&pod, &facts(true, refused), None, 6);
    let waiting = &refused["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(
        (&waiting["reason"], &waiting["message"]),
        (&json!("ErrImageNeverPull"), &json!("no image"))
    );
    assert_eq!(refused["phase"], "Pending");

    let new = make(&pod, &facts(false, ContainerFacts::default()), None, 6);
    assert_eq!(
        new["containerStatuses"][0]["state"]["waiting"]["reason"],
        "ContainerCreating"
    );
    assert_eq!(new["podIP"], Value::Null);
    assert!(
        new.as_object().unwrap().contains_key("podIP"),
        "a stale address is cleared"
    );
}

#[test]
fn ends() {
    let done = |code| ContainerFacts {
        attempt: 1,
        exit: Some(exit(code)),
        streak: 1,
        ..ContainerFacts::default()
    };
    for (policy, code, phase, reason) in [
        ("Never", 0, "Succeeded", "PodCompleted"),
        ("Never", 3, "Failed", "PodFailed"),
        ("OnFailure", 0, "Succeeded", "PodCompleted"),
        ("OnFailure", 3, "Running", "ContainersNotReady"),
        ("Always", 0, "Running", "ContainersNotReady"),
    ] {
        let pod = make_pod(&json!({"restartPolicy": policy}), &json!({}));
        let status = make(&pod, &facts(false, done(code)), None, 9);
        assert_eq!(status["phase"], phase, "{policy} {code}");
        assert_eq!(
            condition(&status, "Ready")["reason"],
            reason,
            "{policy} {code}"
        );
        assert_eq!(
            status.get("podIP").is_none(),
            phase != "Running",
            "{policy} {code}"
        );
    }
    let pod = make_pod(&json!({}), &json!({"phase": "Failed"}));
    assert_eq!(
        make(&pod, &facts(true, running(true)), None, 9)["phase"],
        "Failed"
    );
}

#[test]
fn readiness_gates_and_foreign_conditions() {
    let spec = json!({"readinessGates": [{"conditionType": "example.com/lb"}]});
    let with = |status: &str| {
        let conditions = json!([{"type": "example.com/lb", "status": status}]);
        make(
            &make_pod(&spec, &json!({"conditions": conditions})),
            &facts(true, running(true)),
            None,
            9,
        )
    };
    let closed = with("False");
    assert_eq!(
        condition(&closed, "Ready")["reason"],
        "ReadinessGatesNotReady"
    );
    assert_eq!(condition(&closed, "ContainersReady")["status"], "True");
    assert_eq!(condition(&closed, "example.com/lb")["status"], "False");
    assert_eq!(condition(&with("True"), "Ready")["status"], "True");
}

#[test]
fn init_containers_are_reported() {
    let pod = make_pod(&json!({"initContainers": [{"name": "init"}]}), &json!({}));
    let status = make(&pod, &facts(true, ContainerFacts::default()), None, 9);
    assert_eq!(
        status["initContainerStatuses"][0]["state"]["waiting"]["reason"],
        "ContainerCreating"
    );
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    assert_eq!(
        condition(&status, "Initialized")["reason"],
        "ContainersNotInitialized"
    );
}
