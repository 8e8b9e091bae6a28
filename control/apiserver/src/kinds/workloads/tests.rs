use serde_json::{Value, json};

use super::*;

fn deployment(change: impl Fn(&mut Value)) -> (Value, Vec<String>) {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "seaway.dev/echo"}]}}}});
    change(&mut object);
    DEPLOYMENT.default(&mut object);
    DEPLOYMENT.prepare_create(&mut object);
    let errors = DEPLOYMENT
        .validate(&object, None)
        .iter()
        .map(ToString::to_string)
        .collect();
    (object, errors)
}

#[test]
fn defaults_are_upstreams() {
    let (object, errors) = deployment(|_| {});
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(object["metadata"]["generation"], 1);
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    assert_eq!(spec["strategy"], rolling);
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    let (zero, _) = deployment(|o| o["spec"]["replicas"] = 0.into());
    assert_eq!(zero["spec"]["replicas"], 0);
}

#[test]
fn bad_deployments() {
    let mismatch =
        deployment(|o| o["spec"]["template"]["metadata"]["labels"]["app"] = "api".into()).1;
    assert_eq!(
        mismatch,
        [
            "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"api\"}: `selector` does not match \
          template `labels`"
        ]
    );
    let negative = deployment(|o| o["spec"]["replicas"] = (-1).into()).1;
    assert_eq!(
        negative,
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
    let stuck = deployment(|o| {
        o["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
    });
    assert_eq!(
        stuck.1,
        [
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"
        ]
    );
    let unselected = deployment(|o| o["spec"] = json!({"template": o["spec"]["template"]})).1;
    assert_eq!(
        unselected,
        [
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"web\"}: `selector` does not match \
          template `labels`"
        ]
    );
}

#[test]
fn generation_counts_changes_of_the_spec_only() {
    let (old, _) = deployment(|_| {});
    let mut relabelled = old.clone();
    relabelled["metadata"]["labels"] = json!({"a": "b"});
    DEPLOYMENT.prepare_update(&mut relabelled, &old);
    assert_eq!(relabelled["metadata"]["generation"], 1);
    let mut scaled = old.clone();
    scaled["spec"]["replicas"] = 3.into();
    scaled["status"] = json!({"replicas": 9});
    DEPLOYMENT.prepare_update(&mut scaled, &old);
    assert_eq!(scaled["metadata"]["generation"], 2);
    assert!(scaled.get("status").is_none());
    let mut reported = old.clone();
    reported["spec"]["replicas"] = 7.into();
    reported["status"] = json!({"replicas": 1});
    DEPLOYMENT.prepare_status_update(&mut reported, &old);
    assert_eq!(reported["spec"]["replicas"], 1);
    assert_eq!(reported["status"]["replicas"], 1);
    assert_eq!(reported["metadata"]["generation"], 1);
}

#[test]
fn the_selector_never_changes() {
    let (old, _) = deployment(|_| {});
    let mut new = old.clone();
    new["spec"]["selector"]["matchLabels"]["app"] = "x".into();
    new["spec"]["template"]["metadata"]["labels"]["app"] = "x".into();
    let errors = DEPLOYMENT.validate(&new, Some(&old));
    assert_eq!(
        errors[0].to_string(),
        "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"
    );
}
