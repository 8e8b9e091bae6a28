//! One node's Pods for real: namespaces, cgroups and processes of this machine, a CNI plugin that is a shell
//! script, and an API that only takes notes. Needs root.

#![expect(
    clippy::unwrap_used,
    reason = "the fixture stands outside of test functions"
)]

mod node;

use std::time::Duration;

use node::{TestNode, pod};
use seaway_kernel::NetNs;
use serde_json::json;

/// Ends at once on SIGTERM, and says so.
const POLITE: &str =
    "trap 'echo bye; exit 0' TERM; echo hello $GREETING; while :; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_from_creation_to_deletion() {
    let node = TestNode::start("life").await;
    let mut web = pod("life", &["sh", "-c", POLITE]);
    web["spec"]["containers"][0]["env"] =
        json!([{"name": "GREETING", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let ready = node.file("ready");
    web["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-f", ready]}, "periodSeconds": 1});
    node.apply(&web);

    node.until("running but not ready", |status| {
        status["phase"] == "Running" && status["containerStatuses"][0]["ready"] == false
    })
    .await;
    assert_eq!(node.status()["podIP"], "10.244.9.5");
    let netns = node.netns("life").unwrap();
    let pid = node.pid("life", "main").unwrap();
    assert!(
        NetNs::open(format!("/proc/{pid}/ns/net").as_ref())
            .unwrap()
            .is_same(&NetNs::named(&netns).unwrap())
            .unwrap()
    );
    assert_eq!(node.cgroup_processes("life", "main").first(), Some(&pid));
    node.touch("ready");
    node.until("ready", |status| {
        status["containerStatuses"][0]["ready"] == true
    })
    .await;
    node.until_log("life", "main", 1, "hello 10.244.9.5\n")
        .await;

    web["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    web["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    node.apply(&web);
    node.until_deleted("life").await;
    let last = node.status();
    assert_eq!(
        last["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0,
        "{last}"
    );
    assert!(NetNs::named(&netns).is_err(), "the namespace is gone");
    assert_eq!(node.plugin_calls(), ["ADD", "DEL"]);
    node.until_forgotten("life").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_the_agent_and_is_adopted() {
    let mut node = TestNode::start("adopt").await;
    let web = pod("adopt", &["sh", "-c", POLITE]);
    node.apply(&web);
    node.until("ready", |status| {
        status["containerStatuses"][0]["ready"] == true
    })
    .await;
    let (pid, netns) = (node.pid("adopt", "main"), node.netns("adopt"));

    node.restart().await;
    node.until("adopted", |status| {
        status["containerStatuses"][0]["ready"] == true
    })
    .await;
    assert_eq!(
        (node.pid("adopt", "main"), node.netns("adopt")),
        (pid, netns)
    );
    assert_eq!(node.status()["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(node.plugin_calls(), ["ADD", "CHECK"]);

    // It ends while nobody looks: started again, in the same sandbox.
    node.stop().await;
    node.kill(pid.unwrap());
    node.resume().await;
    node.until("started again", |status| {
        status["containerStatuses"][0]["restartCount"] == 1
            && status["containerStatuses"][0]["ready"] == true
    })
    .await;
    let last = node.status()["containerStatuses"][0]["lastState"]["terminated"].clone();
    assert_eq!(last["reason"], "ContainerStatusUnknown", "{last}");

    // The API forgot the Pod meanwhile: everything is removed.
    node.stop().await;
    node.forget_in_api("adopt");
    node.resume().await;
    node.until_forgotten("adopt").await;
    assert_eq!(node.plugin_calls().last().map(String::as_str), Some("DEL"));
    assert!(node.cgroup_processes("adopt", "main").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_container_backs_off_and_a_stubborn_one_is_killed() {
    let node = TestNode::start("crash").await;
    node.apply(&pod("crash", &["sh", "-c", "echo once; exit 3"]));
    node.until("backing off", |status| {
        let web = &status["containerStatuses"][0];
        web["state"]["waiting"]["reason"] == "CrashLoopBackOff" && web["restartCount"] == 1
    })
    .await;
    assert_eq!(
        node.status()["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        3
    );

    let stubborn = TestNode::start("stubborn").await;
    let mut web = pod(
        "stubborn",
        &[
            "sh",
            "-c",
            "trap '' TERM; echo stubborn; while :; do sleep 0.05; done",
        ],
    );
    stubborn.apply(&web);
    stubborn
        .until("running", |status| status["phase"] == "Running")
        .await;
    // From then on; a shell that has just begun still ends at the first signal.
    stubborn
        .until_log("stubborn", "main", 1, "stubborn\n")
        .await;
    web["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    web["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    let begin = std::time::Instant::now();
    stubborn.apply(&web);
    stubborn.until_deleted("stubborn").await;
    assert!(
        begin.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    let ended = stubborn.status()["containerStatuses"][0]["state"]["terminated"].clone();
    assert_eq!(
        (ended["exitCode"].as_i64(), ended["signal"].as_i64()),
        (Some(137), Some(9))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_network_leaves_nothing_and_is_tried_again() {
    let node = TestNode::start("refused").await;
    node.break_plugin(r#"{"code": 11, "msg": "no addresses left"}"#);
    node.apply(&pod("refused", &["sh", "-c", POLITE]));
    node.until_event("FailedCreatePodSandBox", "no addresses left (code 11)")
        .await;
    assert_eq!(node.netns("refused"), None);
    assert_eq!(node.plugin_calls()[..2], ["ADD", "DEL"]);
    node.mend_plugin();
    node.until("running", |status| status["phase"] == "Running")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_cannot_run_say_why() {
    let node = TestNode::start("missing").await;
    node.apply(&pod("missing", &["no-such-program"]));
    node.until("refused", |status| {
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CreateContainerError"
            && waiting["message"]
                .as_str()
                .is_some_and(|text| text.contains("no-such-program"))
    })
    .await;
    assert_eq!(node.status()["phase"], "Pending");
}
