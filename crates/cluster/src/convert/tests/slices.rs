use std::time::SystemTime;

use super::*;

#[test]
fn slice_conditions_and_ports_default_as_the_api_says() {
    let (got, diagnostics) = slice(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "all", "port": null}],
        "endpoints": [
            {"addresses": ["10.244.1.2"], "nodeName": "n1", "hints": {"forZones": [{"name": "a"}]}},
            {"addresses": ["10.244.1.3"], "conditions": {"ready": null, "serving": null, "terminating": null}},
            {"addresses": ["10.244.1.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.1.5"], "conditions": {"ready": false}},
            {"addresses": null},
        ],
    }));
    let got = got.unwrap();
    assert_eq!((got.service.name(), got.family), ("web", Family::V4));
    check(
        &got.ports,
        &expect![[
            r#"[SlicePort { name: "", protocol: Tcp, port: 8080 }, SlicePort { name: "dns", protocol: Udp, port: 53 }]"#
        ]],
    );
    let conditions: Vec<_> = got
        .endpoints
        .iter()
        .map(|e| (e.ready, e.serving, e.terminating))
        .collect();
    assert_eq!(
        conditions,
        [
            (true, true, false),
            (true, true, false),
            (false, true, true),
            (false, false, false)
        ]
    );
    assert_eq!(got.endpoints[0].node.as_deref(), Some("n1"));
    check(&got.endpoints[0].zone_hints, &expect![[r#"["a"]"#]]);
    expect![[r#"shop/web-1 ports[2].port: not set: a Service port has no "all ports", the port is ignored"#]]
        .assert_eq(&diagnostics.join("\n"));
}

#[test]
fn slices_by_address_type() {
    let make = |kind: Value, labels: Value, addresses: Value| {
        slice(json!({
            "metadata": {"name": "s", "namespace": "d", "labels": labels}, "addressType": kind,
            "endpoints": [{"addresses": addresses}],
        }))
    };
    let owned = || json!({"kubernetes.io/service-name": "web"});
    let (v6, none) = make("IPv6".into(), owned(), json!(["fd00::1"]));
    assert_eq!((v6.unwrap().family, none), (Family::V6, vec![]));

    for (addresses, want, say) in [
        (json!(["010.0.0.1"]), expect!["[10.0.0.1]"], expect![[""]]),
        (
            json!(["fd00::1", "10.0.0.1"]),
            expect!["[]"],
            expect![
                "d/s endpoints[0].addresses[0]: fd00::1 is not of the slice's addressType: not forwarded to"
            ],
        ),
        (
            json!(["x"]),
            expect!["[]"],
            expect![[
                r#"d/s endpoints[0].addresses[0]: "x" is not an IP address: not forwarded to"#
            ]],
        ),
        (
            json!(["10.0.0.1", "10.0.0.2"]),
            expect!["[10.0.0.1]"],
            expect![[
                r#"d/s endpoints[0].addresses[1]: only the first address of an endpoint counts: "10.0.0.2" is not forwarded to"#
            ]],
        ),
    ] {
        let (mixed, said) = make("IPv4".into(), owned(), addresses);
        let endpoints = mixed.unwrap().endpoints;
        check(
            &endpoints.iter().map(|e| e.address).collect::<Vec<_>>(),
            &want,
        );
        say.assert_eq(&said.join("\n"));
    }

    for (kind, labels, want) in [
        (
            json!("FQDN"),
            owned(),
            r#"d/s addressType: "FQDN" cannot be forwarded to: the slice is ignored"#,
        ),
        (
            Value::Null,
            owned(),
            r#"d/s addressType: "" cannot be forwarded to: the slice is ignored"#,
        ),
        (
            json!("IPv4"),
            json!({}),
            "d/s metadata.labels[kubernetes.io/service-name]: missing: the slice belongs to no Service and is ignored",
        ),
    ] {
        assert_eq!(
            make(kind, labels, json!(["10.0.0.1"])),
            (None, vec![want.to_owned()])
        );
    }
    let headless =
        json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""});
    assert_eq!(
        make("IPv4".into(), headless, json!(["10.0.0.1"])),
        (None, vec![])
    );
}

#[test]
fn hints_of_zones_and_nodes() {
    let (got, said) = slice(json!({
        "metadata": {"name": "s", "namespace": "d", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": ["10.0.0.2"], "hints": {"forZones": null}},
            {"addresses": ["10.0.0.3"], "hints": null},
        ],
    }));
    let endpoints = got.unwrap().endpoints;
    let hints: Vec<_> = endpoints
        .iter()
        .map(|e| (&e.zone_hints, &e.node_hints))
        .collect();
    check(
        &hints,
        &expect![[r#"[(["a", "b"], ["n1"]), ([], []), ([], [])]"#]],
    );
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn when_the_change_happened() {
    let seconds = |time: Value| {
        let (got, said) = slice(json!({
            "metadata": {
                "name": "s", "namespace": "d", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": time, "other": "x"},
            },
            "addressType": "IPv4",
        }));
        let last = got.unwrap().last_change;
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        (last.map(|time| since(time).as_secs_f64()), said)
    };
    assert_eq!(
        seconds(json!("1970-01-01T00:00:07.25Z")),
        (Some(7.25), vec![])
    );
    assert_eq!(seconds(Value::Null), (None, vec![]));
    let say = r#"d/s metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]: "late" is not a time: this change is not measured"#;
    assert_eq!(seconds(json!("late")), (None, vec![say.to_owned()]));
}
