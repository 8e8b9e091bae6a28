//! The built binary as its operator meets it: files, flags, HTTP, systemd, other proxies. Each test has a network
//! namespace of its own. Needs root and iptables.

#![allow(clippy::unwrap_used)]

mod legacy;
mod node;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;

use node::{Node, endpoint, service, slice};

const CONFIG: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.244.0.0/16
iptables: {minSyncPeriod: 5s}
";

#[test]
fn a_configuration_file_and_manifests_are_enough_to_serve() {
    let node = Node::new();
    node.write("config.conf", CONFIG);
    node.manifest("web.yaml", &service("web", 10, 32001));
    node.manifest("slice.yaml", &slice("web", &[endpoint(2, "n1")]));
    let mut daemon = node.run(&["--config", &node.path("config.conf")], &[]);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);

    let healthz = node.get(10256, "/healthz").unwrap().1;
    for part in ["\"nodeEligible\":true", "\"lastUpdated\":\"", "\"IPv6\":{"] {
        assert!(healthz.contains(part), "{healthz}");
    }
    assert_eq!(node.get(10249, "/proxyMode").unwrap().1, "iptables");
    node.until("the health check port is open", || {
        node.status(32001, "/") == 200
    });
    let check = node.get(32001, "/").unwrap().1;
    assert!(check.contains("\"localEndpoints\":1"), "{check}");
    let metrics = node.get(10249, "/metrics").unwrap().1;
    for name in [
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} ",
        "kubeproxy_sync_proxy_rules_service_changes_total 1",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
        "kubeproxy_proxy_healthz_total{code=\"200\"} ",
        "seaway_proxy_services 1",
        "kubeproxy_sync_proxy_rules_iptables_total{ip_family=\"IPv4\",table=\"nat\"} ",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(name), "{name} not in {metrics}");
    }

    // The node is about to go: load balancers look elsewhere, nothing is restarted.
    node.manifest("node.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}\n");
    node.until("/healthz is 503", || node.status(10256, "/healthz") == 503);
    assert_eq!(node.status(10256, "/livez"), 200);
    assert_eq!(node.status(32001, "/"), 200);

    // The endpoint moves away; another Service claims the port.
    node.manifest("slice.yaml", &slice("web", &[endpoint(2, "n2")]));
    node.manifest("other.yaml", &service("zzz", 11, 32001));
    node.until("no endpoint is left here", || {
        node.status(32001, "/") == 503
    });
    node.until("the conflict is counted", || {
        let metrics = node.get(10249, "/metrics").unwrap().1;
        metrics.contains("seaway_proxy_health_check_port_failures_total 1")
    });

    assert!(daemon.stop().success());
    let log = daemon.log();
    assert!(
        log.contains("iptables.minSyncPeriod (\\\"5s\\\") has no effect")
            || log.contains("iptables.minSyncPeriod (\"5s\") has no effect"),
        "{log}"
    );
    assert!(
        log.contains("Service default/web has the same port"),
        "{log}"
    );

    // What the commands that look say about it.
    let config = node.path("config.conf");
    let (code, text, _) = node.ask("dump", &["--config", &config]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("10.96.0.10:80/tcp"), "{text}");
    assert!(text.contains("# ipv4: nothing to do"), "{text}");
    let (code, text, _) = node.ask(
        "explain",
        &["10.244.2.9", "default/web:80", "--config", &config],
    );
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("10.244.1.2:8080 (node n2; EndpointSlice web-1, endpoints[0]): used"),
        "{text}"
    );
    for to in [
        "default/web:80",
        "10.96.0.10:81",
        "10.96.0.10:80/udp",
        "192.0.2.7:80",
    ] {
        let [iptables, ebpf] = ["iptables", "ebpf"].map(|mode| {
            let args = ["10.244.2.9", to, "--mode", mode, "--config", &config];
            let (code, text, error) = node.ask("explain", &args);
            assert_eq!(code, 0, "{error}");
            text
        });
        assert_eq!(iptables, ebpf, "the answer is that of the model");
    }
    let nothing_pinned = ["--bpffs-root", "/sys/fs/bpf/seaway-none"];
    let (code, text, error) = node.ask("flows", &[&["--list"], &nothing_pinned[..]].concat());
    assert_eq!((code, &*text), (0, ""), "nobody has connected: {error}");
    let (code, _, error) = node.ask("flows", &nothing_pinned);
    assert_eq!(code, 1);
    assert!(error.contains("mode ebpf is not in force"), "{error}");
    let (_, text, _) = node.ask("plan", &["--diff", "--config", &config]);
    assert_eq!(text, "nothing to do\n");
    node.manifest("slice.yaml", &slice("web", &[endpoint(7, "n2")]));
    let (_, text, error) = node.ask("plan", &["--diff", "--config", &config]);
    let changed = |sign: &str, addr: &str| {
        text.lines()
            .any(|line| line.starts_with(sign) && line.contains(addr))
    };
    assert!(changed("  - ", "10.244.1.2:8080"), "{text}{error}");
    assert!(changed("  + ", "10.244.1.7:8080"), "{text}{error}");

    let (code, text, error) = node.bare("cleanup");
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("iptables: removed"), "{text}");
}

#[test]
fn another_proxy_is_refused_unless_the_operator_insists() {
    let node = Node::new();
    node.sh("iptables -t nat -N KUBE-SERVICES");
    // It has our ports, too; that is not what the operator has to hear of.
    let port = node.listen(10256);
    let (code, _, error) = node.ask("run", &[]);
    drop(port);
    assert_eq!(code, 1);
    for part in ["kube-proxy (chain KUBE-SERVICES)", "--ignore-other-proxies"] {
        assert!(error.contains(part), "{error}");
    }
    let (code, text, _) = node.bare("check");
    assert_eq!(code, 1);
    assert!(text.contains("other proxy: kube-proxy"), "{text}");

    let mut daemon = node.run(&["--ignore-other-proxies"], &[]);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);
    assert!(daemon.stop().success());
    node.sh("iptables -t nat -X KUBE-SERVICES");
    let (code, text, error) = node.bare("check");
    assert_eq!(code, 0, "{text}{error}");
    assert!(text.contains("other proxies: none"), "{text}");
}

#[test]
fn cleanup_needs_no_cgroup_hierarchy() {
    let node = Node::new();
    let (code, text, error) = node.without_cgroup2("cleanup");
    assert_eq!(code, 0, "{text}{error}");
    assert!(text.contains("ebpf: nothing to remove"), "{text}");
}

#[test]
fn a_name_that_no_node_has_is_said() {
    let node = Node::new();
    let said = |name: &str| {
        format!(
            "there is no Node {name}: its zone is unknown, and endpoints of this node are those with nodeName {name}"
        )
    };
    let (code, _, error) = node.ask("explain", &["10.244.1.9", "192.0.2.7:80"]);
    assert_eq!(
        (code, error.contains("there is no Node")),
        (0, false),
        "{error}"
    );
    let mut daemon = node.run(&[], &[]);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);
    assert!(daemon.stop().success());
    assert!(
        !daemon.log().contains("there is no Node"),
        "{}",
        daemon.log()
    );

    std::fs::remove_file(node.path("manifests/node.yaml")).unwrap();
    let (code, _, error) = node.ask("explain", &["10.244.1.9", "192.0.2.7:80"]);
    assert_eq!((code, error.contains(&said("n1"))), (0, true), "{error}");
    let mut daemon = node.run(&[], &[]);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);
    assert!(daemon.stop().success());
    assert_eq!(
        daemon.log().matches(&said("n1")).count(),
        1,
        "{}",
        daemon.log()
    );
}

#[test]
fn directories_that_mode_ebpf_cannot_use_are_refused_with_their_flag() {
    let node = Node::new();
    let none = node.path("none");
    for (flag, said) in [
        ("--cgroup-root", "is not in a cgroup2 file system"),
        ("--bpffs-root", "is not in a BPF file system"),
    ] {
        let args = ["--mode", "ebpf", flag, &none];
        // What would not run has no plan.
        for command in ["run", "plan"] {
            let (code, _, error) = node.ask(command, &args);
            assert_eq!(code, 1, "{command}: {error}");
            for part in [said, flag, &none] {
                assert!(error.contains(part), "{command}: {error}");
            }
        }
        let (code, text, error) = node.bare_args("check", &args);
        assert_eq!(code, 1, "{text}{error}");
        assert!(
            text.contains("mode ebpf: cannot run: ") && text.contains(said),
            "{text}"
        );
    }
}

/// What the commands that look say to programs.
#[test]
fn what_is_shown_is_shown_to_programs_as_well() {
    let node = Node::new();
    node.manifest("web.yaml", &service("web", 10, 32001));
    node.manifest("slice.yaml", &slice("web", &[endpoint(2, "n1")]));
    let json = |(code, text, error): (i32, String, String)| -> Value {
        assert_eq!(code, 0, "{error}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let pins = ["--bpffs-root", "/sys/fs/bpf/seaway-none"];
    for (mode, part) in [("iptables", "SEAWAY-"), ("ebpf", "frontends")] {
        let args = [&["--mode", mode, "--json"][..], &pins].concat();
        let plan = json(node.ask("plan", &args));
        assert_eq!(
            (&plan["mode"], &plan["inSync"]),
            (&mode.into(), &false.into())
        );
        let changes = plan["changes"].as_array().unwrap();
        let ours = changes.iter().find(|change| {
            let place = change["map"].as_str().or(change["chain"].as_str());
            place.is_some_and(|place| place.starts_with(part))
        });
        let ours = ours.unwrap_or_else(|| panic!("{plan:#}"));
        assert_ne!(ours["added"].as_array().unwrap().len(), 0, "{plan:#}");
        let count = |sign: &str| -> usize {
            let lines = changes.iter().filter_map(|change| change[sign].as_array());
            lines.map(Vec::len).sum()
        };
        assert_eq!(
            (&plan["added"], &plan["removed"]),
            (&count("added").into(), &0.into())
        );
    }
    for (mode, place) in [("iptables", "tools"), ("ebpf", "loaded")] {
        let args = [&["--mode", mode, "--json"][..], &pins].concat();
        let dump = json(node.ask("dump", &args));
        assert_eq!(dump["desired"][0]["service"], "default/web", "{dump:#}");
        assert_eq!(dump["toDo"]["inSync"], false, "{dump:#}");
        let actual = json(node.ask("dump", &[&args[..], &["--actual"]].concat()));
        assert_eq!(
            (&actual["desired"], &actual["toDo"]),
            (&Value::Null, &Value::Null)
        );
        assert!(actual["actual"].get(place).is_some(), "{actual:#}");
    }
    let answer = json(node.ask("explain", &["10.244.2.9", "default/web:80", "--json"]));
    assert_eq!(answer["verdict"], "deliver");
    assert_eq!(
        answer["service"]["endpoints"][0]["address"],
        "10.244.1.2:8080"
    );
    let report = json(node.bare_args("check", &["--json"]));
    assert_eq!(report["modes"]["iptables"]["canRun"], true, "{report:#}");
    node.sh("iptables-nft -t nat -N KUBE-SERVICES");
    let (code, text, _) = node.bare_args("check", &["--json"]);
    let report = json((0, text, String::new()));
    assert_eq!(
        (code, &report["otherProxies"][0]["name"]),
        (1, &"kube-proxy".into())
    );
}

/// It takes connections, and says nothing.
#[test]
fn a_silent_api_is_named_and_so_is_how_long_it_is_waited_for() {
    let node = Node::new();
    let port = 6443;
    let _silent = node.listen(port);
    let api = format!("the API at http://127.0.0.1:{port}");
    let kubeconfig = node.kubeconfig(port);
    let from = ["--kubeconfig", &kubeconfig, "--hostname-override", "n1"];

    let mut plan = node.spawn("plan", &from);
    node.until("plan says what it waits for", || {
        plan.log()
            .contains(&format!("waiting for {api}, for up to 30 s\n"))
    });
    plan.kill();
    let args = [&["--list", "--service", "default/web"][..], &from].concat();
    let (code, _, error) = node.bare_args("flows", &args);
    assert_eq!(code, 1, "{error}");
    for part in [
        format!("waiting for {api}, for up to 5 s\n"),
        format!("waited 5 s for {api} in vain\n"),
        "--kubeconfig".to_owned(),
    ] {
        assert!(error.contains(&part), "{error}");
    }
    let mut daemon = node.spawn("run", &from);
    node.until("run says what it waits for", || {
        daemon
            .log()
            .contains(&format!("waiting for the first lists of {api}"))
    });
    assert!(daemon.stop().success());
}

#[test]
fn cleanup_says_once_why_the_node_could_not_be_told() {
    let node = Node::new();
    let kubeconfig = node.kubeconfig(1);
    let args = ["--kubeconfig", &kubeconfig, "--hostname-override", "n1"];
    let (code, text, error) = node.bare_args("cleanup", &args);
    assert_eq!(code, 1, "{text}{error}");
    let why = "the annotation of the Node: no answer from http://127.0.0.1:1: ";
    assert!(error.contains(why), "{error}");
    assert_eq!(error.matches("no answer").count(), 1, "{error}");
}

/// A setting that is taken from the Node waits for it, in words from the beginning.
#[test]
fn a_node_that_is_waited_for_is_named_at_once() {
    let node = Node::new();
    std::fs::remove_file(node.path("manifests/node.yaml")).unwrap();
    let args = ["--detect-local-mode", "NodeCIDR"];
    let mut daemon = node.run(&args, &[]);
    node.until("the Node is asked for", || {
        let log = daemon.log();
        log.contains("waiting: there is no Node n1 yet (--hostname-override)")
    });
    node.manifest(
        "node.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n",
    );
    node.until("its field is asked for", || {
        daemon
            .log()
            .contains("waiting: Node n1 has no spec.podCIDRs yet")
    });
    assert!(daemon.stop().success());
}

/// Nothing that comes later would heal it: whoever supervises the daemon hears of it at once.
#[test]
fn mode_ebpf_ends_at_start_where_the_kernel_refuses_it() {
    let node = Node::new();
    let (code, text, error) = node.in_user_namespace("run", &["--mode", "ebpf"]);
    assert_eq!((code, &*text), (1, ""), "{error}");
    let lines: Vec<&str> = error.lines().collect();
    let [line] = lines[..] else {
        panic!("{error}");
    };
    assert!(
        line.starts_with("seaway-proxy: the kernel lets this process load no program"),
        "{line}"
    );
    assert!(
        !std::fs::exists(node.path("run")).unwrap(),
        "it left a lock file"
    );
}

/// As in `seaway-proxy plan | head`.
#[test]
fn who_stops_reading_ends_a_command_that_shows_without_a_word() {
    let node = Node::new();
    node.manifest("web.yaml", &service("web", 10, 32001));
    for command in ["plan", "dump", "explain"] {
        let args: &[&str] = match command {
            "explain" => &["10.244.1.9", "192.0.2.7:80"],
            _ => &[],
        };
        let (signal, error) = node.ask_without_reader(command, args);
        assert_eq!(signal, Some(nix::libc::SIGPIPE), "{command}: {error}");
        assert!(!error.contains("panicked"), "{command}: {error}");
    }
}

/// As root's PATH is after `su` without `-`.
#[test]
fn cleanup_fails_where_iptables_is_not_found_and_rules_are_left() {
    let node = Node::new();
    let env = [("PATH", "/nonexistent")];
    let (code, text, error) = node.bare_with("cleanup", &env);
    assert_eq!(code, 0, "there is no rule: {text}{error}");
    node.sh("iptables-nft -t nat -N SEAWAY-SERVICES");
    let (code, text, error) = node.bare_with("cleanup", &env);
    assert_eq!(code, 1, "{text}{error}");
    for part in [
        "chain SEAWAY-SERVICES of table nat and 0 more of ours",
        "iptables-nft-restore is not installed, or not in PATH (/nonexistent)",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let (code, text, error) = node.bare("cleanup");
    assert_eq!(code, 0, "{text}{error}");
}

#[test]
fn systemd_hears_of_readiness_and_life() {
    let node = Node::new();
    let path = node.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let env = [
        ("NOTIFY_SOCKET", path.as_str()),
        ("WATCHDOG_USEC", "400000"),
    ];
    let mut daemon = node.run(&[], &env);
    let mut heard = String::new();
    let mut buffer = [0; 1024];
    while !(heard.contains("READY=1") && heard.matches("WATCHDOG=1").count() >= 3) {
        let length = socket
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("{e} after {heard}\n{}", daemon.log()));
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        heard.push('\n');
    }
    assert!(daemon.stop().success());
    while let Ok(length) = socket.recv(&mut buffer) {
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if heard.contains("STOPPING=1") {
            return;
        }
    }
    panic!("no word of the end: {heard}");
}

#[test]
fn settings_of_connection_tracking_are_made() {
    let node = Node::new();
    let args = [
        "--conntrack-tcp-timeout-established=2h",
        "--conntrack-udp-timeout=33s",
        "--conntrack-max-per-core=0",
    ];
    let mut daemon = node.run(&args, &[]);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);
    for (key, value) in [("tcp_timeout_established", "7200"), ("udp_timeout", "33")] {
        let key = format!("/proc/sys/net/netfilter/nf_conntrack_{key}");
        node.until(&key, || node.read(&key) == value);
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_wrong_file_ends_it_with_the_path_of_the_field() {
    let node = Node::new();
    node.write("config.conf", &format!("{CONFIG}clusterCidr: 10.0.0.0/8\n"));
    let (code, _, error) = node.ask("run", &["--config", &node.path("config.conf")]);
    assert_eq!(code, 1);
    assert!(
        error.contains("clusterCidr is no field of KubeProxyConfiguration; is clusterCIDR meant?"),
        "{error}"
    );
}
