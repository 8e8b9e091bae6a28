//! What `deploy/` holds is what the binary takes and needs: no more, no less.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser;
use seaway_proxy::cli::{Cli, Command, Mode, RunArgs};
use seaway_proxy::config::Config;
use seaway_proxy::ebpf::Forwarding;
use seaway_proxy::privileges;
use serde_json::{Value, json};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// All documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    let path = deploy().join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

fn document(path: &str) -> Value {
    let mut all = documents(path);
    assert_eq!(all.len(), 1, "{path}");
    all.remove(0)
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is no list"));
    list.iter().map(|item| item.as_str().unwrap()).collect()
}

fn run_args(args: &[&str]) -> RunArgs {
    let all = ["seaway-proxy"].iter().chain(args);
    match Cli::try_parse_from(all) {
        Ok(Cli {
            command: Command::Run(args),
            ..
        }) => args,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// The file of the ConfigMap, put where `--config` can find it.
fn config_of(map: &Value, mut args: RunArgs) -> (Config, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.conf");
    std::fs::write(&path, map["data"]["config.conf"].as_str().unwrap()).unwrap();
    args.node.config = Some(path);
    let (config, run) = Config::for_run(&args).unwrap();
    let notes = config.notes.iter().chain(&run.notes).cloned().collect();
    (config, notes)
}

fn daemon_sets() -> [(Mode, Value); 2] {
    [
        (Mode::Iptables, document("kustomize/base/daemonset.yaml")),
        (Mode::Ebpf, document("kustomize/ebpf/daemonset.yaml")),
    ]
}

fn pod(daemon_set: &Value) -> &Value {
    &daemon_set["spec"]["template"]["spec"]
}

#[test]
fn every_file_of_a_kustomization_is_there_and_every_file_is_in_one() {
    for base in std::fs::read_dir(deploy().join("kustomize")).unwrap() {
        let base = format!("kustomize/{}", base.unwrap().file_name().display());
        let kustomization = document(&format!("{base}/kustomization.yaml"));
        let named: BTreeSet<String> = strings(&kustomization["resources"])
            .into_iter()
            .map(str::to_owned)
            .collect();
        for name in &named {
            assert!(deploy().join(&base).join(name).exists(), "{base}/{name}");
        }
        for entry in std::fs::read_dir(deploy().join(&base)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                name == "kustomization.yaml" || named.contains(&name),
                "{base}/{name} is in no kustomization"
            );
        }
    }
}

#[test]
fn the_binary_takes_the_arguments_and_the_file() {
    let map = document("kustomize/base/configmap.yaml");
    for (mode, daemon_set) in daemon_sets() {
        for containers in ["initContainers", "containers"] {
            let args = run_args(&strings(&pod(&daemon_set)[containers][0]["args"]));
            assert_eq!(args.init_only, containers == "initContainers");
            let (config, notes) = config_of(&map, args.clone());
            assert_eq!(notes, Vec::<String>::new());
            if !args.init_only {
                assert_eq!(config.mode, mode);
                assert!(config.node_name.is_some());
                assert_eq!(
                    config.kubeconfig.as_deref(),
                    Some(Path::new("/etc/seaway/kubeconfig.conf"))
                );
            }
        }
    }
}

/// The way to replace kube-proxy node by node.
#[test]
fn labelled_nodes_are_served_beside_what_kube_proxy_left() {
    let kustomization = document("kustomize/labelled/kustomization.yaml");
    let patch = kustomization["patches"][0]["patch"].as_str().unwrap();
    let patch: Vec<Value> = serde_saphyr::from_str(patch).unwrap();
    let value = |path: &str| {
        let found = patch.iter().find(|change| change["path"] == path);
        found.unwrap_or_else(|| panic!("{path}"))["value"].clone()
    };
    let daemon_set = document("kustomize/base/daemonset.yaml");
    let template = "/spec/template/spec";
    // A patch adds to what is there.
    assert!(pod(&daemon_set)["nodeSelector"].is_object());
    let label = value(&format!("{template}/nodeSelector/seaway.dev~1proxy"));
    assert_eq!(label, "true");

    let added = value(&format!("{template}/containers/0/args/-"));
    let mut args = strings(&pod(&daemon_set)["containers"][0]["args"]);
    args.push(added.as_str().unwrap());
    assert!(run_args(&args).ignore_other_proxies);
}

/// The settings without and with the flag that an overlay of the manifests of mode ebpf adds.
fn flag_of(overlay: &str) -> [RunArgs; 2] {
    let kustomization = document(&format!("kustomize/{overlay}/kustomization.yaml"));
    let patch = kustomization["patches"][0]["patch"].as_str().unwrap();
    let patch: Vec<Value> = serde_saphyr::from_str(patch).unwrap();
    assert_eq!(patch[0]["path"], "/spec/template/spec/containers/0/args/-");
    let daemon_set = document("kustomize/ebpf/daemonset.yaml");
    assert_eq!(
        kustomization["patches"][0]["target"]["name"],
        daemon_set["metadata"]["name"]
    );
    let without = strings(&pod(&daemon_set)["containers"][0]["args"]);
    let mut with = without.clone();
    with.push(patch[0]["value"].as_str().unwrap());
    [run_args(&without), run_args(&with)]
}

/// Which files of an overlay allow something on a resource.
fn allows(resource: &str) -> Vec<&'static str> {
    let files = ["base/rbac.yaml", "pod-labels/rbac.yaml", "dsr/rbac.yaml"];
    let allows = |file: &&str| {
        let text = std::fs::read_to_string(deploy().join("kustomize").join(file)).unwrap();
        text.contains(&format!("resources: [{resource}]"))
    };
    files.into_iter().filter(allows).collect()
}

/// Nobody else may see Pods.
#[test]
fn pods_are_followed_only_where_their_labels_count() {
    assert_eq!(
        flag_of("pod-labels").map(|run| run.pod_labels),
        [false, true]
    );
    assert_eq!(allows("pods"), ["pod-labels/rbac.yaml"]);
}

/// Nobody else may write to Nodes.
#[test]
fn nodes_are_annotated_only_where_they_answer_clients_of_others() {
    let forwarding = flag_of("dsr").map(|run| run.node.kernel.forwarding);
    assert_eq!(forwarding, [Forwarding::Snat, Forwarding::Dsr]);
    assert_eq!(allows("nodes/status"), ["dsr/rbac.yaml"]);
}

#[test]
fn the_kubeconfig_can_be_used_and_its_token_is_read_again() {
    let map = document("kustomize/base/configmap.yaml");
    let text = map["data"]["kubeconfig.conf"].as_str().unwrap();
    let kubeconfig: Value = serde_saphyr::from_str(text).unwrap();
    // A token in the file itself would end with its first rotation.
    let user = &kubeconfig["users"][0]["user"];
    assert_eq!(
        user,
        &json!({"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"})
    );
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
    assert!(server.is_some_and(|url| url.starts_with("https://")));
    let context = &kubeconfig["contexts"][0];
    assert_eq!(context["name"], kubeconfig["current-context"]);
    assert_eq!(context["context"]["user"], kubeconfig["users"][0]["name"]);
    assert_eq!(
        context["context"]["cluster"],
        kubeconfig["clusters"][0]["name"]
    );
}

#[test]
fn capabilities_are_those_that_the_mode_needs() {
    for (mode, daemon_set) in daemon_sets() {
        let context = &pod(&daemon_set)["containers"][0]["securityContext"];
        let granted = strings(&context["capabilities"]["add"]);
        let needed = privileges::names(mode);
        let granted: BTreeSet<String> = granted.iter().map(|c| format!("CAP_{c}")).collect();
        // The other mode's rules are removed after a change of mode, which takes what iptables takes.
        let cleanup = privileges::names(Mode::Iptables);
        let expected = needed.iter().chain(&cleanup).map(|c| (*c).to_owned());
        assert_eq!(granted, expected.collect(), "{mode:?}");
        assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
        assert_eq!(context["readOnlyRootFilesystem"], json!(true));
        assert_eq!(context["allowPrivilegeEscalation"], json!(false));
        assert_eq!(context.get("privileged"), None);
    }
}

#[test]
fn roles_allow_what_is_asked_of_the_api_and_no_more() {
    let documents = documents("kustomize/base/rbac.yaml");
    let rules = documents[0]["rules"].as_array().unwrap();
    let allowed: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| {
            let resource = strings(&rule["resources"]).join(",");
            let group = strings(&rule["apiGroups"]).join(",");
            let verbs = strings(&rule["verbs"]);
            verbs
                .into_iter()
                .map(move |verb| format!("{verb} {resource}.{group}"))
                .collect::<Vec<_>>()
        })
        .collect();
    let expected: BTreeSet<String> = [
        "get services.",
        "list services.",
        "watch services.",
        "get endpointslices.discovery.k8s.io",
        "list endpointslices.discovery.k8s.io",
        "watch endpointslices.discovery.k8s.io",
        "get nodes.",
        "list nodes.",
        "watch nodes.",
        "create events.events.k8s.io",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(allowed, expected);
    let binding = &documents[1];
    let account = document("kustomize/base/serviceaccount.yaml");
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(binding["roleRef"]["name"], documents[0]["metadata"]["name"]);
    for (_, daemon_set) in daemon_sets() {
        assert_eq!(
            pod(&daemon_set)["serviceAccountName"],
            account["metadata"]["name"]
        );
    }
}

#[test]
fn mounts_have_volumes_probes_have_paths_and_labels_select() {
    for (_, daemon_set) in daemon_sets() {
        let pod = pod(&daemon_set);
        let name_of = |item: &Value| item["name"].as_str().unwrap().to_owned();
        let names = |list: &Value| -> BTreeSet<String> {
            list.as_array().unwrap().iter().map(name_of).collect()
        };
        let container = &pod["containers"][0];
        assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
        for (probe, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/healthz"),
        ] {
            assert_eq!(container[probe]["httpGet"]["path"], json!(path));
        }
        assert_eq!(container["ports"][0]["containerPort"], json!(10256));
        assert_eq!(
            daemon_set["spec"]["selector"]["matchLabels"],
            daemon_set["spec"]["template"]["metadata"]["labels"]
        );
        assert_eq!(pod["hostNetwork"], json!(true));
        assert_eq!(pod.get("hostPID"), None);
    }
}

/// Keys of a unit file with their values; a key may come more than once.
fn unit(path: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deploy().join(path)).unwrap();
    text.lines()
        .filter(|line| !line.starts_with(['#', '[']) && !line.is_empty())
        .map(|line| {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn the_unit_waits_for_readiness_feeds_a_watchdog_and_grants_what_is_needed() {
    let service = unit("systemd/seaway-proxy.service");
    let value = |unit: &[(String, String)], key: &str| {
        let found = unit.iter().find(|(k, _)| k == key);
        found.map(|(_, v)| v.clone()).unwrap_or_default()
    };
    assert_eq!(value(&service, "Type"), "notify");
    assert_eq!(value(&service, "WatchdogSec"), "30s");
    let start = value(&service, "ExecStart");
    let words: Vec<_> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/seaway-proxy");
    run_args(&words[1..]);

    let ebpf = unit("systemd/seaway-proxy.service.d/ebpf.conf");
    assert_eq!(value(&ebpf, "Environment"), "SEAWAY_PROXY_MODE=ebpf");
    for (mode, unit) in [(Mode::Iptables, &service), (Mode::Ebpf, &ebpf)] {
        let granted = value(unit, "CapabilityBoundingSet");
        let granted: BTreeSet<_> = granted.split(' ').collect();
        for needed in privileges::names(mode) {
            assert!(granted.contains(needed), "{mode:?}: {needed}");
        }
    }
}
