use serde_json::{Value, json};

use super::*;

#[expect(
    clippy::needless_pass_by_value,
    reason = "cases read better with values in place"
)]
fn created(spec: Value) -> (Value, Vec<String>) {
    let mut object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    SERVICE.default(&mut object);
    SERVICE.prepare_create(&mut object);
    let errors = SERVICE
        .validate(&object, None)
        .iter()
        .map(ToString::to_string)
        .collect();
    (object, errors)
}

fn updated(old: &Value, change: impl Fn(&mut Value)) -> (Value, Vec<String>) {
    let mut new = old.clone();
    change(&mut new);
    SERVICE.default(&mut new);
    SERVICE.prepare_update(&mut new, old);
    let errors = SERVICE
        .validate(&new, Some(old))
        .iter()
        .map(ToString::to_string)
        .collect();
    (new, errors)
}

#[test]
fn a_bare_service_gets_upstreams_defaults() {
    let (object, errors) = created(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    assert_eq!(errors, Vec::<String>::new());
    let expected = json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]});
    assert_eq!(object["spec"], expected);
}

#[test]
fn bad_services_are_told_which_field_and_why() {
    let range = "must be between 1 and 65535, inclusive";
    let cases = [
        (
            json!({"ports": [{"port": 0}]}),
            vec![
                format!("spec.ports[0].port: Invalid value: 0: {range}"),
                format!("spec.ports[0].targetPort: Invalid value: 0: {range}"),
            ],
        ),
        (json!({}), vec!["spec.ports: Required value".to_owned()]),
        (
            json!({"ports": [{"port": 1}], "trafficDistribution": "PreferFar"}),
            vec![
                "spec.trafficDistribution: Unsupported value: \"PreferFar\": supported values: \"PreferClose\", \
                 \"PreferSameNode\", \"PreferSameZone\""
                    .to_owned(),
            ],
        ),
        (
            json!({"ports": [{"port": 1}], "trafficDistribution": "PreferSameNode"}),
            vec![],
        ),
        (
            json!({"type": "Foo", "ports": [{"port": 1}]}),
            vec![
                "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\""
                    .to_owned(),
            ],
        ),
        (
            json!({"ports": [{"port": 1}, {"port": 2}]}),
            vec!["spec.ports[0].name: Required value".to_owned(), "spec.ports[1].name: Required value".to_owned()],
        ),
        (
            json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
            vec!["spec.ports[1].name: Duplicate value: \"a\"".to_owned()],
        ),
        (
            json!({"ports": [{"port": 1, "nodePort": 30000}]}),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".to_owned()],
        ),
        (
            json!({"ports": [{"port": 1, "protocol": "ICMP"}]}),
            vec![
                "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""
                    .to_owned(),
            ],
        ),
        (
            json!({"ports": [{"port": 1}], "clusterIP": "10.0.0"}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)"
                    .to_owned(),
            ],
        ),
        (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value".to_owned()]),
    ];
    for (spec, expected) in cases {
        assert_eq!(created(spec.clone()).1, expected, "{spec}");
    }
}

#[test]
fn an_update_keeps_what_it_leaves_out() {
    let (mut old, _) = created(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    old["spec"]["clusterIP"] = "10.96.0.7".into();
    old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    old["spec"]["ports"][0]["nodePort"] = 30080.into();
    let (new, errors) = updated(&old, |new| {
        new["spec"] = json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}, {"port": 81, "name": "b"}]});
        new["spec"]["ports"][0]["name"] = "a".into();
    });
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
    assert!(new["spec"]["ports"][1].get("nodePort").is_none());
}

#[test]
fn the_address_stays_and_a_change_of_type_drops_what_it_must() {
    let (mut old, _) = created(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    old["spec"]["clusterIP"] = "10.96.0.7".into();
    old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    old["spec"]["ports"][0]["nodePort"] = 30080.into();
    let (_, errors) = updated(&old, |new| new["spec"]["clusterIP"] = "10.96.0.8".into());
    assert_eq!(
        errors,
        ["spec.clusterIPs[0]: Invalid value: []string{\"10.96.0.8\"}: may not change once set"]
    );
    let (new, errors) = updated(&old, |new| new["spec"]["type"] = "ClusterIP".into());
    assert_eq!(errors, Vec::<String>::new());
    assert!(new["spec"]["ports"][0].get("nodePort").is_none());
    assert!(new["spec"].get("externalTrafficPolicy").is_none());
    let (new, errors) = updated(&old, |new| {
        new["spec"]["type"] = "ExternalName".into();
        new["spec"]["externalName"] = "example.com".into();
    });
    assert_eq!(errors, Vec::<String>::new());
    assert!(new["spec"].get("clusterIP").is_none());
}
