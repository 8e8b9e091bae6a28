use serde_json::{Value, json};

use super::*;
use crate::kinds;

mod oracle;

fn decoded(group: &str, plural: &str, mut body: Value) -> Result<(Value, Vec<String>), String> {
    let kind = kinds::find(group, "v1", plural).unwrap();
    let warnings = decode(kind, &mut body, FieldValidation::Warn)
        .map_err(|error| error.into_status(kind).message)?;
    Ok((body, warnings))
}

#[test]
fn every_kind_and_every_reference_is_in_the_table() {
    for kind in kinds::all() {
        let def = of(kind).unwrap_or_else(|| panic!("{} has no type", kind.kind));
        assert!(def.field("metadata").is_some(), "{}", kind.kind);
        assert!(!def.doc.is_empty(), "{}", kind.kind);
    }
    assert!(registry().root("autoscaling/v1", "Scale").is_some());
    assert!(registry().all().len() > 150);
}

#[test]
fn merge_keys_exist_in_the_items() {
    for def in registry().all() {
        for field in &def.fields {
            let Merge::Key(key) = field.merge else {
                continue;
            };
            let Type::List(item) = &field.ty else {
                panic!("{}.{} is no list", def.name, field.name)
            };
            let Type::Ref(index) = item.as_ref() else {
                panic!("{}.{} has no objects", def.name, field.name)
            };
            assert!(
                registry().get(*index).field(key).is_some(),
                "{}.{}",
                def.name,
                field.name
            );
        }
    }
}

#[test]
fn unknown_fields_and_nulls_go() {
    let body = json!({"metadata": {"name": "web", "creationTimestamp": null},
        "spec": {"foo": 1, "ports": [{"port": 80, "bar": {}}], "selector": {"any": "thing"}}});
    let (object, warnings) = decoded("", "services", body).unwrap();
    assert_eq!(
        warnings,
        [
            "unknown field \"spec.foo\"",
            "unknown field \"spec.ports[0].bar\""
        ]
    );
    let expected = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}], "selector": {"any": "thing"}}});
    assert_eq!(object, expected);
}

#[test]
fn what_is_empty_and_optional_goes() {
    let body = json!({"metadata": {"labels": {}, "annotations": {}, "finalizers": []},
        "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "command": [],
            "resources": {"limits": {}}}], "nodeSelector": {}}});
    let (object, _) = decoded("", "pods", body).unwrap();
    let expected = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {},
        "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "resources": {}}]}});
    assert_eq!(object, expected);
    let slice = json!({"addressType": "IPv4", "endpoints": []});
    let (slice, _) = decoded("discovery.k8s.io", "endpointslices", slice).unwrap();
    assert_eq!(slice["endpoints"], json!([]));
}

#[test]
fn times_are_written_as_go_reads_them() {
    let lease = json!({"metadata": {"creationTimestamp": "2026-01-01T02:00:00.5+01:00"},
        "spec": {"renewTime": "2026-01-01T00:00:00Z", "acquireTime": "2026-01-01T00:00:00.123456789Z"}});
    let (lease, _) = decoded("coordination.k8s.io", "leases", lease).unwrap();
    assert_eq!(
        lease["metadata"]["creationTimestamp"],
        "2026-01-01T01:00:00Z"
    );
    assert_eq!(lease["spec"]["renewTime"], "2026-01-01T00:00:00.000000Z");
    assert_eq!(lease["spec"]["acquireTime"], "2026-01-01T00:00:00.123456Z");
}

#[test]
fn strict_validation_refuses() {
    let kind = kinds::find("apps", "v1", "deployments").unwrap();
    let mut body =
        json!({"spec": {"foo": 1, "template": {"spec": {"containers": [{"nmae": "c"}]}}}});
    let status = decode(kind, &mut body, FieldValidation::Strict)
        .unwrap_err()
        .into_status(kind);
    assert_eq!(status.code, 400);
    assert_eq!(
        status.message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \
         \"spec.foo\", unknown field \"spec.template.spec.containers[0].nmae\""
    );
    assert_eq!(FieldValidation::parse(""), Some(FieldValidation::Warn));
    assert_eq!(FieldValidation::parse("Sometimes"), None);
}

#[test]
fn wrong_types_are_named() {
    let cases = [
        (
            json!({"spec": {"ports": [{"port": "80"}]}}),
            "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            json!({"spec": {"ports": {}}}),
            "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
        ),
        (
            json!({"spec": []}),
            "json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec",
        ),
        (
            json!({"spec": {"selector": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ServiceSpec.spec.selector of type string",
        ),
        (
            json!({"spec": {"ports": [{"port": 8e30}]}}),
            "json: cannot unmarshal number 8e+30 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            json!({"metadata": {"deletionTimestamp": "soon"}}),
            "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
        ),
    ];
    for (body, expected) in cases {
        let error = decoded("", "services", body).unwrap_err();
        assert_eq!(
            error,
            format!("Service in version \"v1\" cannot be handled as a Service: {expected}")
        );
    }
    assert!(
        decoded("", "secrets", json!({"data": {"a": "***"}}))
            .unwrap_err()
            .ends_with("illegal base64 data at input byte 0")
    );
    let pod = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}});
    assert!(
        decoded("", "pods", pod)
            .unwrap_err()
            .contains("cannot be handled as a Pod: quantities must match the regular expression")
    );
}

#[test]
fn bodies_of_another_kind() {
    let error = decoded("", "services", json!({"apiVersion": "v1", "kind": "Pod"})).unwrap_err();
    assert_eq!(
        error,
        "Pod in version \"v1\" cannot be handled as a Service: unknown conversion"
    );
    let error = decoded(
        "",
        "services",
        json!({"apiVersion": "v2", "kind": "Service"}),
    )
    .unwrap_err();
    assert_eq!(
        error,
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
}

#[test]
fn free_forms_and_odd_scalars_pass() {
    let body = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 2}},
            "readinessProbe": {"httpGet": {"port": "http"}}}],
        "volumes": [{"name": "v", "csi": {"driver": "d", "anything": [1]}}],
        "affinity": {"nodeAffinity": {"x": 1}}}});
    let (object, warnings) = decoded("", "pods", body).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        object["spec"]["containers"][0]["resources"]["limits"]["cpu"],
        "2"
    );
    let lease =
        json!({"spec": {"renewTime": "2026-01-01T00:00:00.123456Z", "leaseDurationSeconds": 40}});
    assert_eq!(
        decoded("coordination.k8s.io", "leases", lease).unwrap().1,
        Vec::<String>::new()
    );
}
