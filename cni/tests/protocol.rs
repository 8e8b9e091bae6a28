//! What runtimes see, word for word.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use expect_test::{Expect, expect};
use seaway_cni::attachment::{Attachment, Style};
use seaway_cni::ipam::Assigned;
use seaway_cni::protocol::{
    AddResult, Args, Dns, Invocation, NetworkConfig, OwnerKey, Version, conflist, version_answer,
};
use serde_json::json;

#[expect(clippy::needless_pass_by_value, reason = "`expect![]` gives a value")]
fn check(actual: &str, expected: Expect) {
    expected.assert_eq(actual);
}

fn result(version: Version) -> String {
    let owner = OwnerKey {
        container_id: "0123abcd".into(),
        ifname: "eth0".into(),
    };
    let assigned = ["10.244.1.5", "fd00:1::5"].map(|address| Assigned {
        address: address.parse().unwrap(),
        gateway: None,
    });
    let attachment = Attachment::new(&owner, Some(1450), None).with(Style::Routed, &assigned, &[]);
    let result = attachment.result("/run/netns/pod", Dns::default());
    let json = result.to_json(version).unwrap();
    // Every result must be readable as a previous one.
    let read = AddResult::parse(&json).unwrap();
    assert_eq!(read.to_json(version).unwrap(), json);
    format!("{json:#}\n")
}

#[test]
fn result_of_0_4_0_says_the_ip_version() {
    check(
        &result(Version::V0_4_0),
        expect![[r#"
        {
          "cniVersion": "0.4.0",
          "dns": {},
          "interfaces": [
            {
              "mac": "d2:38:e4:38:ff:5e",
              "name": "sw2b30002f723"
            },
            {
              "mac": "fe:3d:1b:69:7d:0f",
              "name": "eth0",
              "sandbox": "/run/netns/pod"
            }
          ],
          "ips": [
            {
              "address": "10.244.1.5/32",
              "gateway": "169.254.1.1",
              "interface": 1,
              "version": "4"
            },
            {
              "address": "fd00:1::5/128",
              "gateway": "fe80::1",
              "interface": 1,
              "version": "6"
            }
          ],
          "routes": [
            {
              "dst": "0.0.0.0/0",
              "gw": "169.254.1.1"
            },
            {
              "dst": "::/0",
              "gw": "fe80::1"
            }
          ]
        }
    "#]],
    );
}

#[test]
fn result_of_1_0_0() {
    check(
        &result(Version::V1_0_0),
        expect![[r#"
        {
          "cniVersion": "1.0.0",
          "dns": {},
          "interfaces": [
            {
              "mac": "d2:38:e4:38:ff:5e",
              "name": "sw2b30002f723"
            },
            {
              "mac": "fe:3d:1b:69:7d:0f",
              "name": "eth0",
              "sandbox": "/run/netns/pod"
            }
          ],
          "ips": [
            {
              "address": "10.244.1.5/32",
              "gateway": "169.254.1.1",
              "interface": 1
            },
            {
              "address": "fd00:1::5/128",
              "gateway": "fe80::1",
              "interface": 1
            }
          ],
          "routes": [
            {
              "dst": "0.0.0.0/0",
              "gw": "169.254.1.1"
            },
            {
              "dst": "::/0",
              "gw": "fe80::1"
            }
          ]
        }
    "#]],
    );
}

#[test]
fn result_of_1_1_0_says_the_mtu() {
    check(
        &result(Version::V1_1_0),
        expect![[r#"
        {
          "cniVersion": "1.1.0",
          "dns": {},
          "interfaces": [
            {
              "mac": "d2:38:e4:38:ff:5e",
              "mtu": 1450,
              "name": "sw2b30002f723"
            },
            {
              "mac": "fe:3d:1b:69:7d:0f",
              "mtu": 1450,
              "name": "eth0",
              "sandbox": "/run/netns/pod"
            }
          ],
          "ips": [
            {
              "address": "10.244.1.5/32",
              "gateway": "169.254.1.1",
              "interface": 1
            },
            {
              "address": "fd00:1::5/128",
              "gateway": "fe80::1",
              "interface": 1
            }
          ],
          "routes": [
            {
              "dst": "0.0.0.0/0",
              "gw": "169.254.1.1"
            },
            {
              "dst": "::/0",
              "gw": "fe80::1"
            }
          ]
        }
    "#]],
    );
}

fn invoke(env: &[(&str, &str)]) -> String {
    let get = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    match Invocation::from_env(get) {
        Ok(invocation) => format!("{:?}", invocation.verb),
        Err(error) => error.to_json(None).to_string(),
    }
}

#[test]
fn all_missing_variables_are_named_at_once() {
    check(
        &invoke(&[("CNI_COMMAND", "ADD")]),
        expect![[
            r#"{"cniVersion":"1.1.0","code":4,"msg":"required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"}"#
        ]],
    );
    check(
        &invoke(&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0")]),
        expect![[
            r#"{"cniVersion":"1.1.0","code":4,"msg":"required env variables [CNI_CONTAINERID] missing"}"#
        ]],
    );
    check(
        &invoke(&[("CNI_COMMAND", "GC")]),
        expect![[
            r#"{"cniVersion":"1.1.0","code":4,"msg":"required env variables [CNI_PATH] missing"}"#
        ]],
    );
    check(&invoke(&[("CNI_COMMAND", "VERSION")]), expect!["Version"]);
    check(
        &invoke(&[("CNI_COMMAND", "UPDATE")]),
        expect![[r#"{"cniVersion":"1.1.0","code":4,"msg":"unknown CNI_COMMAND: UPDATE"}"#]],
    );
}

#[test]
fn names_are_checked() {
    let with = |id: &'static str, ifname: &'static str| {
        invoke(&[
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", id),
            ("CNI_IFNAME", ifname),
        ])
    };
    check(&with("a_b.c-1", "eth0"), expect!["Del"]);
    check(
        &with("../etc", "eth0"),
        expect![[
            r#"{"cniVersion":"1.1.0","code":4,"msg":"invalid CNI_CONTAINERID \"../etc\": it must start with an alphanumeric character, and hold only those and _ . -"}"#
        ]],
    );
    check(
        &with("a", "a-name-too-long-"),
        expect![[
            r#"{"cniVersion":"1.1.0","code":4,"msg":"invalid CNI_IFNAME \"a-name-too-long-\": 1 to 15 bytes, no slash, colon or white space"}"#
        ]],
    );
    for bad in [".", "..", "a/b", "a:b", "a b"] {
        assert!(with("a", bad).contains("invalid CNI_IFNAME"), "{bad}");
    }
}

fn parse(input: &str) -> String {
    match NetworkConfig::parse(input.as_bytes()) {
        Ok(config) if config.previous().is_err() => {
            let error = config.previous().unwrap_err();
            error.to_json(Some(config.version)).to_string()
        }
        Ok(config) => format!(
            "{} {} {}",
            config.version,
            config.name,
            config.run_dir.display()
        ),
        Err((version, error)) => error.to_json(version).to_string(),
    }
}

#[test]
fn configs_are_read_or_refused_with_the_right_code() {
    check(
        &parse(r#"{"cniVersion":"1.0.0","name":"net","type":"seaway-cni","unknown":[1]}"#),
        expect!["1.0.0 net /run/seaway"],
    );
    check(
        &parse(""),
        expect![[
            r#"{"cniVersion":"1.1.0","code":6,"msg":"the network configuration is not a JSON object: EOF while parsing a value at line 1 column 0"}"#
        ]],
    );
    check(
        &parse("[]"),
        expect![[
            r#"{"cniVersion":"1.1.0","code":6,"msg":"the network configuration is not a JSON object: invalid type: sequence, expected a map at line 1 column 0"}"#
        ]],
    );
    check(
        &parse(r#"{"cniVersion":1}"#),
        expect![[r#"{"cniVersion":"1.1.0","code":6,"msg":"cniVersion must be a string, not 1"}"#]],
    );
    check(
        &parse(r#"{"name":"net"}"#),
        expect!["0.1.0 net /run/seaway"],
    );
    check(
        &parse(r#"{"cniVersion":"2.0.0","name":"net"}"#),
        expect![[
            r#"{"cniVersion":"1.1.0","code":1,"details":"supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0","msg":"config version 2.0.0 is not supported"}"#
        ]],
    );
    check(
        &parse(r#"{"cniVersion":"1.0.0"}"#),
        expect![[
            r#"{"cniVersion":"1.0.0","code":7,"msg":"network name \"\" is not valid: it must start with an alphanumeric character, and hold only those and _ . -"}"#
        ]],
    );
    check(
        &parse(r#"{"cniVersion":"1.0.0","name":"a/b"}"#),
        expect![[
            r#"{"cniVersion":"1.0.0","code":7,"msg":"network name \"a/b\" is not valid: it must start with an alphanumeric character, and hold only those and _ . -"}"#
        ]],
    );
    check(
        &parse(r#"{"cniVersion":"0.4.0","name":"net","runDir":"run"}"#),
        expect![[
            r#"{"cniVersion":"0.4.0","code":7,"msg":"runDir \"run\" must be an absolute path"}"#
        ]],
    );
    check(
        &parse(r#"{"cniVersion":"1.1.0","name":"net","prevResult":{"ips":[{"address":"x"}]}}"#),
        expect![[r#"{"cniVersion":"1.1.0","code":7,"msg":"prevResult: invalid address: x"}"#]],
    );
}

#[test]
fn version_is_answered_to_any_input() {
    check(
        &version_answer(b"").to_string(),
        expect![[
            r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        ]],
    );
    check(
        &version_answer(br#"{"cniVersion":"0.4.0"}"#).to_string(),
        expect![[
            r#"{"cniVersion":"0.4.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        ]],
    );
}

#[test]
fn cni_args_of_podman_and_kubernetes() {
    let args =
        Args::parse("IgnoreUnknown=1;K8S_POD_NAME=w;MAC=02:00:00:00:00:07;IP=10.89.0.50;FOO=a=b")
            .unwrap();
    assert_eq!(args.addresses, ["10.89.0.50".parse().unwrap()]);
    assert_eq!(args.mac.unwrap().to_string(), "02:00:00:00:00:07");
    assert_eq!(Args::parse("").unwrap(), Args::default());
    assert_eq!(
        Args::parse("K8S_POD_NAMESPACE=x;K8S_POD_UID=").unwrap(),
        Args::default()
    );
    let refused = |text: &str| Args::parse(text).unwrap_err().to_json(None).to_string();
    check(
        &refused("FOO=1"),
        expect![[r#"{"cniVersion":"1.1.0","code":4,"msg":"unknown CNI_ARGS key \"FOO\""}"#]],
    );
    check(
        &refused("FOO"),
        expect![[r#"{"cniVersion":"1.1.0","code":4,"msg":"invalid CNI_ARGS pair \"FOO\""}"#]],
    );
    check(
        &refused("IP=10.0.0"),
        expect![[
            r#"{"cniVersion":"1.1.0","code":4,"msg":"CNI_ARGS IP \"10.0.0\": invalid address: 10.0.0"}"#
        ]],
    );
}

#[test]
fn the_config_list_suits_old_and_new_runtimes() {
    check(
        &conflist("/run/seaway".as_ref(), "/var/lib/seaway".as_ref()),
        expect![[r#"
            {
              "cniVersion": "1.0.0",
              "cniVersions": [
                "0.4.0",
                "1.0.0",
                "1.1.0"
              ],
              "name": "seaway",
              "plugins": [
                {
                  "capabilities": {
                    "bandwidth": true,
                    "dns": true,
                    "ipRanges": true,
                    "ips": true,
                    "mac": true,
                    "portMappings": true
                  },
                  "runDir": "/run/seaway",
                  "stateDir": "/var/lib/seaway",
                  "type": "seaway-cni"
                }
              ]
            }
        "#]],
    );
}

#[test]
fn a_previous_result_with_more_in_it_is_read() {
    let previous = AddResult::parse(&json!({
        "cniVersion": "0.4.0",
        "interfaces": [{ "name": "cni0", "mac": "" }, { "name": "eth0", "sandbox": "/run/netns/x", "mtu": 7 }],
        "ips": [{ "version": "4", "address": "10.244.1.5/32", "interface": 1 }],
        "dns": { "nameservers": ["1.1.1.1"] },
    }));
    assert_eq!(previous.unwrap().interfaces[1].sandbox, "/run/netns/x");
    let nulls =
        json!({ "dns": null, "routes": null, "interfaces": [{ "name": "a", "mac": null }] });
    assert_eq!(AddResult::parse(&nulls).unwrap().interfaces[0].name, "a");
    for not_one in [json!([]), json!("x"), json!([[], [], [], {}])] {
        assert!(AddResult::parse(&not_one).is_err(), "{not_one}");
    }
}
