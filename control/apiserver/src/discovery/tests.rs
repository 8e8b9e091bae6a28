use expect_test::{expect, expect_file};

use super::*;

/// All resources of both forms, one a line: what kubectl knows after discovery.
fn lines_of_aggregated() -> String {
    let mut lines = String::new();
    for core in [true, false] {
        for group in aggregated(core)["items"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                for r in version["resources"].as_array().unwrap() {
                    let kind = &r["responseKind"];
                    lines += &line(
                        &r["resource"],
                        r["scope"] == "Namespaced",
                        kind,
                        &r["verbs"],
                        r,
                    );
                    for s in r["subresources"].as_array().into_iter().flatten() {
                        let name = format!(
                            "{}/{}",
                            r["resource"].as_str().unwrap(),
                            s["subresource"].as_str().unwrap()
                        );
                        lines += &line(
                            &name.into(),
                            r["scope"] == "Namespaced",
                            &s["responseKind"],
                            &s["verbs"],
                            s,
                        );
                    }
                }
            }
        }
    }
    lines
}

fn lines_of_legacy() -> String {
    let mut lines = String::new();
    for (group, version) in group_versions() {
        for r in resources(group, version).unwrap()["resources"]
            .as_array()
            .unwrap()
        {
            let kind = json!({
                "group": r.get("group").cloned().unwrap_or_else(|| group.into()),
                "version": r.get("version").cloned().unwrap_or_else(|| version.into()),
                "kind": r["kind"],
            });
            lines += &line(&r["name"], r["namespaced"] == true, &kind, &r["verbs"], r);
        }
    }
    lines
}

fn line(name: &Value, namespaced: bool, kind: &Value, verbs: &Value, extra: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| -> String {
        let words: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
        words.join(",")
    };
    let scope = if namespaced { "namespaced" } else { "cluster" };
    let kind = format!(
        "{}/{}/{}",
        text(&kind["group"]),
        text(&kind["version"]),
        text(&kind["kind"])
    );
    let more = format!(
        "{} {}",
        list(&extra["shortNames"]),
        list(&extra["categories"])
    );
    format!("{} {scope} {kind} {} {more}", text(name), list(verbs))
        .trim_end()
        .to_owned()
        + "\n"
}

#[test]
fn both_forms_say_the_same() {
    assert_eq!(lines_of_aggregated(), lines_of_legacy());
    expect_file!["tests/resources.txt"].assert_eq(&lines_of_legacy());
}

#[test]
fn groups_and_versions() {
    expect![[r#"[("", "v1"), ("apps", "v1"), ("events.k8s.io", "v1"), ("coordination.k8s.io", "v1"), ("discovery.k8s.io", "v1")]"#]]
    .assert_eq(&format!("{:?}", group_versions()));
    assert_eq!(groups()["groups"].as_array().unwrap().len(), 4);
    assert_eq!(
        group("apps").unwrap()["preferredVersion"]["groupVersion"],
        "apps/v1"
    );
    assert!(group("nope").is_none());
    assert!(group("").is_none());
    assert!(resources("apps", "v2").is_none());
    assert_eq!(core_versions("10.0.0.1:6443")["versions"][0], "v1");
}
