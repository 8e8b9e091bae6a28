use expect_test::expect;
use serde_json::{Value, json};

use super::*;
use crate::kinds;

/// The table as kubectl would print it, wide columns in parentheses.
#[expect(
    clippy::needless_pass_by_value,
    reason = "cases read better with values in place"
)]
fn printed(group: &str, version: &str, plural: &str, object: Value) -> String {
    let layout = Layout {
        kind: kinds::find(group, version, plural).unwrap(),
        version: "v1",
        include: IncludeObject::Metadata,
        columns: true,
        now: "2026-01-01T01:00:00Z".parse().unwrap(),
    };
    let table = layout.list([&object], &json!({"resourceVersion": "7"}));
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len());
    let line = |(column, cell): (&Value, &Value)| {
        let name = column["name"].as_str().unwrap();
        let name = if column["priority"] == 1 {
            format!("({name})")
        } else {
            name.to_owned()
        };
        format!(
            "{name}={}\n",
            cell.as_str()
                .map_or_else(|| cell.to_string(), str::to_owned)
        )
    };
    columns.iter().zip(cells).map(line).collect()
}

fn metadata() -> Value {
    json!({"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"})
}

#[test]
fn services() {
    let object = json!({"metadata": metadata(), "spec": {"type": "NodePort", "clusterIP": "10.96.0.7",
        "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"},
            {"port": 53, "protocol": "UDP"}]}});
    expect![[r#"
        Name=web
        Type=NodePort
        Cluster-IP=10.96.0.7
        External-IP=<none>
        Port(s)=80:30080/TCP,53/UDP
        Age=60m
        (Selector)=app=web
    "#]]
    .assert_eq(&printed("", "v1", "services", object));
}

#[test]
fn nodes() {
    let object = json!({"metadata": {"name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "192.168.100.1"}],
            "nodeInfo": {"kubeletVersion": "v1.33.0", "kernelVersion": "6.18"}}});
    expect![[r#"
        Name=n1
        Status=NotReady,SchedulingDisabled
        Roles=control-plane,worker
        Age=60m
        Version=v1.33.0
        (Internal-IP)=192.168.100.1
        (External-IP)=<none>
        (OS-Image)=<unknown>
        (Kernel-Version)=6.18
        (Container-Runtime)=<unknown>
    "#]]
    .assert_eq(&printed("", "v1", "nodes", object));
}

#[test]
fn deployments_and_slices() {
    let object = json!({"metadata": metadata(), "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}});
    expect![[r#"
        Name=web
        Ready=2/3
        Up-to-date=3
        Available=2
        Age=60m
        (Containers)=c
        (Images)=i
        (Selector)=app=web
    "#]]
    .assert_eq(&printed("apps", "v1", "deployments", object));
    let object = json!({"metadata": metadata(), "addressType": "IPv4", "ports": [{"name": "", "port": 80}],
        "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]},
            {"addresses": ["10.0.0.4"]}]});
    expect![[r#"
        Name=web
        AddressType=IPv4
        Ports=80
        Endpoints=10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...
        Age=60m
    "#]]
    .assert_eq(&printed("discovery.k8s.io", "v1", "endpointslices", object));
}

#[test]
fn events_look_the_same_in_both_versions() {
    let stored = json!({"metadata": metadata(), "involvedObject": {"kind": "Pod", "name": "web-1"},
        "type": "Warning", "reason": "BackOff", "message": " no luck\n", "count": 4,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:50Z",
        "source": {"component": "agent", "host": "n1"}});
    let text = printed("", "v1", "events", stored.clone());
    expect![[r#"
        Last Seen=10s
        Type=Warning
        Reason=BackOff
        Object=pod/web-1
        (Subobject)=
        (Source)=agent, n1
        Message=no luck
        (First Seen)=60m
        (Count)=4
        (Name)=web
    "#]]
    .assert_eq(&text);
    let view = kinds::find("events.k8s.io", "v1", "events").unwrap();
    let mut newer = stored;
    (view.view_of.unwrap().from_stored)(&mut newer);
    assert_eq!(newer["regarding"]["name"], "web-1");
    assert_eq!(newer["apiVersion"], "events.k8s.io/v1");
    assert_eq!(printed("events.k8s.io", "v1", "events", newer), text);
}

#[test]
fn every_kind_fills_all_of_its_columns() {
    for kind in kinds::all() {
        let layout = Layout {
            kind,
            version: "v1",
            include: IncludeObject::Object,
            columns: false,
            now: Timestamp::UNIX_EPOCH,
        };
        let table = layout.single(&json!({"metadata": {"name": "x", "resourceVersion": "5"}}));
        assert_eq!(
            table["rows"][0]["cells"].as_array().unwrap().len(),
            kind.columns.len(),
            "{}",
            kind.kind
        );
        assert!(table["columnDefinitions"].is_null());
        assert_eq!(table["metadata"]["resourceVersion"], "5");
        let bookmark = layout.bookmark(&json!({"metadata": {"resourceVersion": "6"}}));
        assert_eq!(
            bookmark["rows"][0]["object"]["metadata"]["resourceVersion"],
            "6"
        );
    }
}
