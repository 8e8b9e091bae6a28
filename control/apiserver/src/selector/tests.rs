use serde_json::json;

use super::*;
use crate::kinds;

#[expect(
    clippy::needless_pass_by_value,
    reason = "cases read better with values in place"
)]
fn matches(selector: &str, labels: Value) -> bool {
    LabelSelector::parse(selector)
        .unwrap()
        .matches(labels.as_object())
}

#[test]
fn label_selectors() {
    let labels = json!({"app": "web", "tier": "front", "n": "7", "empty": ""});
    let cases = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier = front", true),
        ("app=api", false),
        ("app!=api", true),
        ("other!=x", true),
        ("app in (api, web)", true),
        ("app notin (api,web)", false),
        ("other notin (x)", true),
        ("app", true),
        ("!app", false),
        ("!other", true),
        ("empty=", true),
        ("empty=,app", true),
        ("n>6", true),
        ("n<7", false),
        ("in=x", false),
        ("service.kubernetes.io/headless", false),
        (
            "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless",
            true,
        ),
    ];
    for (selector, expected) in cases {
        assert_eq!(matches(selector, labels.clone()), expected, "{selector}");
    }
}

#[test]
fn label_selectors_that_are_not() {
    for text in [
        "app=web=x",
        "app in web",
        "app in (a",
        "(a)",
        "a b",
        "-x=1",
        "a=b c",
        "a,,b",
        "a=_",
    ] {
        let error = LabelSelector::parse(text).unwrap_err().to_string();
        assert!(
            error.starts_with("unable to parse requirement: "),
            "{text}: {error}"
        );
    }
}

#[test]
fn selectors_print_as_they_are_written() {
    for text in ["app=web,tier in (a,b),!old,x!=y,z", "n>6"] {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn selector_objects() {
    let selector = json!({"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"}]});
    let selector = LabelSelector::from_object(&selector).unwrap();
    assert!(selector.matches(json!({"app": "web", "tier": "a"}).as_object()));
    assert!(!selector.matches(json!({"app": "web", "tier": "a", "old": "1"}).as_object()));
    assert!(!selector.matches(None));
    assert!(
        LabelSelector::from_object(
            &json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})
        )
        .is_err()
    );
}

#[test]
fn field_selectors() {
    let pods = kinds::find("", "v1", "pods").unwrap();
    let pod = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"}});
    let cases = [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name=b", false),
        (
            "spec.nodeName==n1,status.phase!=Succeeded,status.phase!=Failed",
            true,
        ),
        ("spec.nodeName=", false),
        ("spec.hostNetwork=false", true),
    ];
    for (text, expected) in cases {
        let selector = FieldSelector::parse(text).unwrap();
        selector.check(pods).unwrap();
        assert_eq!(selector.matches(pods, &pod), expected, "{text}");
    }
    assert_eq!(
        FieldSelector::parse("metadata.name=a").unwrap().name(),
        Some("a")
    );
    let error = FieldSelector::parse("spec.foo=1")
        .unwrap()
        .check(pods)
        .unwrap_err();
    assert_eq!(error.message, "field label not supported: spec.foo");
    assert_eq!(error.code, 400);
    let error = FieldSelector::parse("nonsense").unwrap_err().to_string();
    assert_eq!(
        error,
        "invalid selector: 'nonsense'; can't understand 'nonsense'"
    );
}

#[test]
fn the_selector_of_kube_proxy_leaves_headless_services_out() {
    let services = kinds::find("", "v1", "services").unwrap();
    let selector = FieldSelector::parse("spec.clusterIP!=None").unwrap();
    selector.check(services).unwrap();
    assert!(!selector.matches(services, &json!({"spec": {"clusterIP": "None"}})));
    assert!(selector.matches(services, &json!({"spec": {"clusterIP": "10.96.0.1"}})));
}
