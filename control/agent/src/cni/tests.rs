use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use expect_test::expect;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::config::load;
use super::exec::addresses;
use super::*;

const LIST: &str = r#"{
    "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0", "9.0.0"], "name": "pods",
    "plugins": [
        {"type": "first", "custom": {"x": [1]}, "capabilities": {"portMappings": true, "bandwidth": true}},
        {"type": "second", "capabilities": {"portMappings": false}}
    ]}"#;

#[test]
fn versions() {
    for (given, want) in [
        (r#""cniVersion": "1.0.0""#, Ok("1.0.0")),
        (
            r#""cniVersion": "0.4.0", "cniVersions": ["1.1.0", "1.0.0"]"#,
            Ok("1.1.0"),
        ),
        (
            r#""cniVersion": "1.0.0", "cniVersions": ["2.0.0"]"#,
            Ok("1.0.0"),
        ),
        (
            r#""cniVersion": "2.0.0""#,
            Err("cniVersion 2.0.0 is not supported (supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0)"),
        ),
        (
            r#""x": 1"#,
            Err("cniVersion 0.1.0 is not supported (supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0)"),
        ),
        (r#""cniVersion": 1"#, Err("cniVersion has the wrong type")),
    ] {
        let text = format!(r#"{{{given}, "name": "n", "plugins": [{{"type": "t"}}]}}"#);
        let got = NetworkList::parse(&text);
        assert_eq!(
            got.as_ref()
                .map(|l| l.version.as_str())
                .map_err(String::as_str),
            want,
            "{given}"
        );
    }
}

#[test]
fn lists_that_cannot_be_used() {
    for (text, want) in [
        ("[]", "a config list is a JSON object"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        (
            r#"{"cniVersion": "1.0.0", "name": "../x"}"#,
            "name \"../x\" is not a network name",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "n"}"#,
            "plugins: at least one is needed",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [1]}"#,
            "plugins[0] is not an object",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../sh"}]}"#,
            "plugins[0].type \"../sh\" is not the name of a program",
        ),
    ] {
        assert_eq!(NetworkList::parse(text).unwrap_err(), want, "{text}");
    }
    let single =
        NetworkList::parse(r#"{"cniVersion": "0.4.0", "name": "n", "type": "bridge", "mtu": 9}"#)
            .unwrap();
    assert_eq!(
        (single.plugin_type(0), &single.plugins[0]["mtu"]),
        ("bridge", &json!(9))
    );
}

#[test]
fn the_first_usable_file_counts() {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let missing = load(&directory.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(missing.starts_with("no CNI config list in /"), "{missing}");
    write("10-broken.conflist", "{");
    assert!(
        load(directory.path())
            .unwrap_err()
            .to_string()
            .contains("10-broken.conflist: EOF")
    );
    write("30-last.conflist", &LIST.replace("pods", "last"));
    write("20-good.conflist", LIST);
    write("15-other.txt", LIST);
    assert_eq!(load(directory.path()).unwrap().name, "pods");
}

/// A plugin that writes down how it was called, and answers with what `answers/TYPE.COMMAND` says.
fn plugins(directory: &Path) -> Plugins {
    let script = format!(
        r#"#!/bin/sh
dir={}; name=$(basename "$0")
input=$(cat)
printf '%s %s %s %s %s %s %s %s\n' "$CNI_COMMAND" "$name" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" "$CNI_ARGS" "$CNI_PATH" "$input" >> "$dir/calls"
if [ -f "$dir/$name.$CNI_COMMAND.fails" ]; then cat "$dir/$name.$CNI_COMMAND.fails"; exit 1; fi
[ "$CNI_COMMAND" = ADD ] && printf '{{"cniVersion":"1.1.0","ips":[{{"address":"10.0.0.5/32"}}],"by":"%s"}}' "$name"
exit 0
"#,
        directory.display()
    );
    for name in ["first", "second"] {
        let path = directory.join(name);
        fs::write(&path, &script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Plugins::new(directory)
}

fn calls(directory: &Path) -> String {
    let calls = fs::read_to_string(directory.join("calls")).unwrap_or_default();
    let _ = fs::remove_file(directory.join("calls"));
    calls.replace(&directory.display().to_string(), "BIN")
}

#[tokio::test]
async fn add_check_del_as_a_runtime_does() {
    let directory = TempDir::new().unwrap();
    let bin = directory.path();
    let plugins = plugins(bin);
    let list = NetworkList::parse(LIST).unwrap();
    let args = [
        ("IgnoreUnknown".to_owned(), "1".to_owned()),
        ("K8S_POD_NAME".to_owned(), "web".to_owned()),
    ];
    let ports = [PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol: "tcp".to_owned(),
        host_ip: None,
    }];
    let attachment = Attachment {
        container_id: "id1",
        netns: "/run/netns/x",
        ifname: "eth0",
        args: &args,
        port_mappings: &ports,
    };
    let result = plugins.add(&list, &attachment).await.unwrap();
    assert_eq!(result["by"], "second");
    assert_eq!(
        addresses(&result),
        ["10.0.0.5".parse::<std::net::IpAddr>().unwrap()]
    );
    expect![[r#"
        ADD first id1 /run/netns/x eth0 IgnoreUnknown=1;K8S_POD_NAME=web BIN {"cniVersion":"1.1.0","custom":{"x":[1]},"name":"pods","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},"type":"first"}
        ADD second id1 /run/netns/x eth0 IgnoreUnknown=1;K8S_POD_NAME=web BIN {"cniVersion":"1.1.0","name":"pods","prevResult":{"by":"first","cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/32"}]},"type":"second"}
    "#]]
    .assert_eq(&calls(bin).replace(r#""containerPort":80,"hostPort":8080,"protocol":"tcp""#, r#""hostPort":8080,"containerPort":80,"protocol":"tcp""#));

    plugins.check(&list, &result, &attachment).await.unwrap();
    plugins
        .del(&list, Some(&result), &attachment)
        .await
        .unwrap();
    plugins.del(&list, None, &attachment).await.unwrap();
    let order: Vec<String> = calls(bin)
        .lines()
        .map(|line| {
            let (head, request) = line.split_once('{').unwrap();
            let request: Value = serde_json::from_str(&format!("{{{request}")).unwrap();
            let words: Vec<&str> = head.split(' ').take(2).collect();
            format!(
                "{} {}",
                words.join(" "),
                request.get("prevResult").map_or(&Value::Null, |r| &r["by"])
            )
        })
        .collect();
    expect![[r#"
        CHECK first "second"
        CHECK second "second"
        DEL second "second"
        DEL first "second"
        DEL second null
        DEL first null"#]]
    .assert_eq(&order.join("\n"));
}

#[tokio::test]
async fn errors_of_plugins() {
    let directory = TempDir::new().unwrap();
    let bin = directory.path();
    let plugins = plugins(bin);
    let list = NetworkList::parse(LIST).unwrap();
    let attachment = Attachment {
        container_id: "id1",
        netns: "/run/netns/x",
        ifname: "eth0",
        args: &[],
        port_mappings: &[],
    };
    fs::write(
        bin.join("second.ADD.fails"),
        r#"{"code": 11, "msg": "try again later", "details": "pool is locked"}"#,
    )
    .unwrap();
    let error = plugins.add(&list, &attachment).await.unwrap_err();
    expect![[r#"CNI ADD by "second" failed: try again later: pool is locked (code 11)"#]]
        .assert_eq(&error.to_string());
    assert!(matches!(error, ExecError::Plugin { code: 11, .. }));

    fs::write(bin.join("second.ADD.fails"), "oops").unwrap();
    let error = plugins
        .add(&list, &attachment)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("oops"), "{error}");

    fs::write(bin.join("second.DEL.fails"), "{}").unwrap();
    calls(bin);
    assert!(plugins.del(&list, None, &attachment).await.is_err());
    assert_eq!(
        calls(bin).lines().count(),
        1,
        "the first error stops the list"
    );

    fs::remove_file(bin.join("second")).unwrap();
    let error = plugins
        .add(&list, &attachment)
        .await
        .unwrap_err()
        .to_string();
    expect![[r#"CNI plugin "second" is not in BIN"#]]
        .assert_eq(&error.replace(&bin.display().to_string(), "BIN"));
}

#[tokio::test]
async fn old_versions_have_no_check_and_no_result_in_del() {
    let directory = TempDir::new().unwrap();
    let bin = directory.path();
    let plugins = plugins(bin);
    let list = NetworkList::parse(
        r#"{"cniVersion": "0.3.1", "name": "n", "plugins": [{"type": "first"}]}"#,
    )
    .unwrap();
    let attachment = Attachment {
        container_id: "id1",
        netns: "",
        ifname: "eth0",
        args: &[],
        port_mappings: &[],
    };
    plugins.check(&list, &json!({}), &attachment).await.unwrap();
    plugins
        .del(&list, Some(&json!({"by": "x"})), &attachment)
        .await
        .unwrap();
    expect![[r#"
        DEL first id1  eth0  BIN {"cniVersion":"0.3.1","name":"n","type":"first"}
    "#]]
    .assert_eq(&calls(bin));
}
