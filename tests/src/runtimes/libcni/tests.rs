use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::runtimes::Scratch;
use crate::runtimes::list::NEW;

const LIST: &str = r#"{
    "cniVersion": "1.1.0", "name": "n",
    "plugins": [{"type": "first"}, {"type": "second"}]}"#;

/// Two plugins that write down how they were called, and fail where a file says so.
struct Written {
    dir: Scratch,
    runtime: Libcni,
    list: List,
}

impl Written {
    fn new() -> Self {
        let dir = Scratch::new("libcni").unwrap();
        let at = dir.path().display();
        let script = format!(
            r#"#!/bin/sh
name=$(basename "$0"); input=$(cat)
echo "$CNI_COMMAND $name id=$CNI_CONTAINERID ns=$CNI_NETNS if=$CNI_IFNAME $input" >> {at}/calls
[ ! -f "{at}/$name.$CNI_COMMAND" ] || {{ echo '{{"code": 7, "msg": "no", "details": "at all"}}'; exit 1; }}
[ "$CNI_COMMAND" != ADD ] || echo "{{\"cniVersion\": \"1.1.0\", \"by\": \"$name\"}}"
"#
        );
        for name in ["first", "second"] {
            let path = dir.path().join(name);
            std::fs::write(&path, &script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let runtime = Libcni {
            node: NetNs::current().unwrap(),
            path: vec!["/nowhere".into(), dir.path().to_owned()],
            cache: dir.path().join("cache"),
        };
        let list = List::parse(LIST, NEW).unwrap();
        Self { dir, runtime, list }
    }

    fn fails(&self, what: &str) {
        std::fs::write(self.dir.path().join(what), "").unwrap();
    }

    /// Verb, plugin, and who made the `prevResult`.
    fn calls(&self) -> Vec<String> {
        let file = self.dir.path().join("calls");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(&file);
        text.lines()
            .map(|line| {
                let (words, request) = line.split_once('{').unwrap();
                let request: Value = serde_json::from_str(&format!("{{{request}")).unwrap();
                let words: Vec<&str> = words.split(' ').take(2).collect();
                let by = request
                    .pointer("/prevResult/by")
                    .map_or("-", |by| by.as_str().unwrap());
                format!("{} {by}", words.join(" "))
            })
            .collect()
    }
}

fn attachment(id: &str) -> Attachment {
    Attachment {
        container_id: id.into(),
        ifname: "eth0".into(),
        netns: "/run/netns/x".into(),
        ..Attachment::default()
    }
}

#[tokio::test]
async fn results_go_from_plugin_to_plugin_and_the_last_is_kept_for_check_and_del() {
    let it = Written::new();
    let pod = attachment("a");
    let result = it.runtime.add(&it.list, &pod).await.unwrap();
    assert_eq!(result["by"], "second");
    it.runtime.check(&it.list, &pod).await.unwrap();
    it.runtime.del(&it.list, &pod).await.unwrap();
    it.runtime.del_again(&it.list, &pod).await.unwrap();
    let wanted = [
        "ADD first -",
        "ADD second first",
        "CHECK first second",
        "CHECK second second",
        "DEL second second",
        "DEL first second",
        "DEL second -",
        "DEL first -",
    ];
    assert_eq!(it.calls(), wanted);
    assert_eq!(it.runtime.all_kept(&it.list).len(), 0);
}

#[tokio::test]
async fn a_failed_add_is_followed_by_del_of_all_without_a_result() {
    let it = Written::new();
    it.fails("second.ADD");
    let failure = it
        .runtime
        .add(&it.list, &attachment("a"))
        .await
        .unwrap_err();
    assert_eq!(
        failure.to_string(),
        "ADD of second: no at all (code Some(7))"
    );
    let wanted = [
        "ADD first -",
        "ADD second first",
        "DEL second -",
        "DEL first -",
    ];
    assert_eq!(it.calls(), wanted);
}

#[tokio::test]
async fn del_before_0_4_0_knows_no_result_and_a_list_may_forbid_check_and_gc() {
    let mut it = Written::new();
    it.list.version = "0.3.1".into();
    it.list.disable_check = true;
    it.list.disable_gc = true;
    let pod = attachment("a");
    it.runtime.add(&it.list, &pod).await.unwrap();
    it.calls();
    it.runtime.check(&it.list, &pod).await.unwrap();
    assert_eq!(it.runtime.gc(&it.list, &[]).await, []);
    it.runtime.del(&it.list, &pod).await.unwrap();
    assert_eq!(it.calls(), ["DEL second -", "DEL first -"]);
}

#[tokio::test]
async fn gc_deletes_what_is_kept_and_not_valid_and_goes_on_after_failures() {
    let it = Written::new();
    for id in ["a", "b"] {
        it.runtime.add(&it.list, &attachment(id)).await.unwrap();
    }
    it.calls();
    it.fails("first.GC");
    let failures = it.runtime.gc(&it.list, &[attachment("b")]).await;
    assert_eq!(failures.len(), 1, "{failures:?}");
    let wanted = [
        "DEL second second",
        "DEL first second",
        "GC first -",
        "GC second -",
    ];
    assert_eq!(it.calls(), wanted);
}

#[tokio::test]
async fn the_first_error_ends_a_list_and_a_plugin_that_is_missing_is_one() {
    let mut it = Written::new();
    it.fails("second.DEL");
    let failure = it
        .runtime
        .del(&it.list, &attachment("a"))
        .await
        .unwrap_err();
    assert_eq!((failure.verb, failure.code), ("DEL", Some(7)));
    assert_eq!(it.calls(), ["DEL second -"]);
    it.list.plugins[0].insert("type".into(), json!("none"));
    let failure = it.runtime.status(&it.list).await.unwrap_err();
    assert_eq!((failure.plugin.as_str(), failure.code), ("none", None));
}
