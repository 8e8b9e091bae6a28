//! What `deploy/` holds of the overlay is what the binaries take and need.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Parser;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::serde::de::DeserializeOwned;
use seaway_overlay::cli::{Cli, Command};
use seaway_overlay::run::NEEDED;

/// Keys of the unit with their values; none comes more than once.
fn unit() -> BTreeMap<String, String> {
    let path = "../../deploy/systemd/seaway-overlay.service";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(path).unwrap();
    let mut unit = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with(['#', '[']) || line.is_empty() {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap();
        let former = unit.insert(key.to_owned(), value.to_owned());
        assert_eq!(former, None, "{key}");
    }
    unit
}

/// As systemd makes it of a line and the unit's environment: `$NAME` is as many words as it has, `${NAME}` a part of one.
fn words(line: &str, environment: &str) -> Vec<String> {
    let mut line = line.to_owned();
    for variable in environment.split(' ') {
        let (name, value) = variable.split_once('=').unwrap();
        line = line.replace(&format!("${{{name}}}"), value);
        line = line.replace(&format!("${name}"), value);
    }
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_binaries_take_what_the_unit_gives() {
    let unit = unit();
    let start = words(&unit["ExecStart"], &unit["Environment"]);
    assert_eq!(start[0], "/usr/bin/seaway-overlay");
    let Command::Run(run) = Cli::try_parse_from(&start).unwrap().command else {
        panic!("{start:?}");
    };
    assert_eq!(run.cluster_cidr, ["10.244.0.0/16".parse().unwrap()]);
    let install = words(&unit["ExecStartPre"], &unit["Environment"]);
    assert_eq!(install[0], "/usr/bin/seaway-cni");
    seaway_cni::cli::Cli::try_parse_from(&install).unwrap();
    // Where both write by default.
    for (key, dir) in [
        ("RuntimeDirectory", &run.places.run_dir),
        ("StateDirectory", &run.places.state_dir),
    ] {
        assert!(dir.ends_with(&unit[key]), "{key}");
    }
    assert_eq!(unit["ProtectSystem"], "yes", "/etc must be writable");
}

#[test]
fn the_unit_grants_what_is_needed_and_no_more() {
    let granted = unit()["CapabilityBoundingSet"].clone();
    let granted: BTreeSet<&str> = granted.split(' ').collect();
    let needed = NEEDED.iter().map(|capability| capability.name).collect();
    assert_eq!(granted, needed);
}

/// Documents of a file of the manifests, in order.
fn documents<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = "../../deploy/kustomize/overlay";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let documents = text.split("\n---\n");
    documents
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

fn pod() -> PodSpec {
    let daemon_set: DaemonSet = documents("daemonset.yaml").remove(0);
    daemon_set.spec.unwrap().template.spec.unwrap()
}

/// Paths in the container, and whose they are.
fn mounts(pod: &PodSpec, container: &Container) -> BTreeMap<PathBuf, PathBuf> {
    let volumes = pod.volumes.iter().flatten();
    let volumes: BTreeMap<&str, &str> = volumes
        .map(|volume| (&*volume.name, &*volume.host_path.as_ref().unwrap().path))
        .collect();
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| {
            (
                mount.mount_path.clone().into(),
                volumes[&*mount.name].into(),
            )
        })
        .collect()
}

#[test]
fn the_binaries_take_what_the_daemon_set_gives() {
    let pod = pod();
    let container = &pod.containers[0];
    let settings: ConfigMap = documents("configmap.yaml").remove(0);
    let mut variables = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let source = variable.value_from.as_ref().unwrap();
        let value = match &source.config_map_key_ref {
            Some(key) => {
                assert_eq!(Some(&key.name), settings.metadata.name.as_ref());
                settings.data.as_ref().unwrap()[&key.key].clone()
            }
            None => source.field_ref.as_ref().unwrap().field_path.clone(),
        };
        variables.insert(format!("$({})", variable.name), value);
    }
    let args = container.args.iter().flatten().map(|arg| {
        let given = variables.iter();
        given.fold(arg.clone(), |arg, (name, value)| arg.replace(name, value))
    });
    let args: Vec<String> = args.collect();
    let words = std::iter::once("seaway-overlay".to_owned()).chain(args);
    let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else {
        panic!("{:?}", container.args);
    };
    assert_eq!(run.cluster_cidr, ["10.244.0.0/16".parse().unwrap()]);
    assert_eq!(run.node.node_name.as_deref(), Some("spec.nodeName"));

    // What it writes where it writes it, and nothing of the node beside that.
    let mut expected: BTreeMap<PathBuf, PathBuf> = [
        &run.places.cni_conf_dir,
        &run.places.cni_bin_dir,
        &run.places.run_dir,
        Path::new("/run/xtables.lock"),
    ]
    .map(|path| (path.to_owned(), path.to_owned()))
    .into();
    assert_ne!(run.procfs, Path::new("/proc"));
    expected.insert(run.procfs.join("sys/net"), "/proc/sys/net".into());
    assert_eq!(mounts(&pod, container), expected);
    let volumes = pod.volumes.as_ref().unwrap();
    assert_eq!(volumes.len(), expected.len());
}

#[test]
fn the_plugin_is_put_where_runtimes_of_the_node_look() {
    let pod = pod();
    let init = &pod.init_containers.as_ref().unwrap()[0];
    let words = init.command.iter().chain(&init.args).flatten();
    let command = seaway_cni::cli::Cli::try_parse_from(words).unwrap().command;
    let seaway_cni::cli::Command::Install(install) = command else {
        panic!("{command:?}");
    };
    let mounts = mounts(&pod, init);
    assert_eq!(mounts[&install.cni_bin_dir], install.cni_bin_dir);
    assert_eq!(mounts.len(), 1);
}

#[test]
fn the_containers_get_what_they_need_and_no_more() {
    let pod = pod();
    let init = pod.init_containers.iter().flatten();
    let needed = NEEDED.map(|capability| capability.name.trim_start_matches("CAP_").to_owned());
    for (container, needed) in init
        .map(|init| (init, None))
        .chain([(&pod.containers[0], Some(needed.to_vec()))])
    {
        let context = container.security_context.as_ref().unwrap();
        let capabilities = context.capabilities.as_ref().unwrap();
        assert_eq!(capabilities.add, needed);
        assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!(context.privileged, None);
        let seccomp = context.seccomp_profile.as_ref().unwrap();
        assert_eq!(seccomp.type_, "RuntimeDefault");
    }
    assert_eq!(pod.host_network, Some(true));
    assert_eq!((pod.host_pid, pod.host_ipc), (None, None));
}

/// It listens on loopback alone.
#[test]
fn kubelet_asks_where_the_daemon_answers() {
    let container = pod().containers.remove(0);
    let words = ["seaway-overlay", "run", "--cluster-cidr=10.244.0.0/16"];
    let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else {
        panic!("{words:?}");
    };
    for (probe, path) in [
        (container.startup_probe, "/livez"),
        (container.liveness_probe, "/livez"),
        (container.readiness_probe, "/healthz"),
    ] {
        let get = probe.unwrap().http_get.unwrap();
        assert_eq!(get.path.as_deref(), Some(path));
        let address = format!("{}:{}", get.host.unwrap(), run.healthz_bind_address.port());
        assert_eq!(address, run.healthz_bind_address.to_string());
        assert_eq!(
            get.port,
            IntOrString::Int(run.healthz_bind_address.port().into())
        );
    }
}

#[test]
fn its_account_may_follow_nodes_and_nothing_else() {
    let [role, binding]: [serde_json::Value; 2] = documents("rbac.yaml").try_into().unwrap();
    let role: ClusterRole = serde_json::from_value(role).unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(binding).unwrap();
    let account: ServiceAccount = documents("serviceaccount.yaml").remove(0);
    let rules = role.rules.unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].api_groups, Some(vec![String::new()]));
    assert_eq!(rules[0].resources, Some(vec!["nodes".to_owned()]));
    assert_eq!(rules[0].verbs, ["list", "watch"]);
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(Some(&subject.name), account.metadata.name.as_ref());
    assert_eq!(pod().service_account_name, account.metadata.name);
}

#[test]
fn labels_select() {
    let daemon_set: DaemonSet = documents("daemonset.yaml").remove(0);
    let spec = daemon_set.spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels;
    assert_eq!(spec.selector.match_labels, labels);
    assert_eq!(daemon_set.metadata.labels, labels);
}
