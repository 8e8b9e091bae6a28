use std::path::Path;

use clap::Parser;
use expect_test::{Expect, expect};

use super::*;
use crate::cli::{Cli, Command};

/// As kubeadm writes it into the ConfigMap `kube-proxy`.
const KUBEADM: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn run_args(args: &[&str]) -> RunArgs {
    let all = ["seaway-proxy", "run"].iter().chain(args);
    match Cli::try_parse_from(all).unwrap().command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

/// What `run` would do with this file and these flags.
fn load(file: &str, args: &[&str]) -> Result<(Config, RunConfig), ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.conf");
    std::fs::write(&path, file).unwrap();
    let config = format!("--config={}", path.display());
    Config::for_run(&run_args(&[&[config.as_str()], args].concat()))
}

/// The notes about a file that has these lines under its header.
fn notes(lines: &str, args: &[&str]) -> Vec<String> {
    let (config, run) = load(&format!("{HEADER}{lines}"), args).unwrap();
    config.notes.into_iter().chain(run.notes).collect()
}

fn refusal(lines: &str) -> String {
    load(&format!("{HEADER}{lines}"), &[])
        .unwrap_err()
        .to_string()
}

#[test]
fn the_file_of_kubeadm_is_taken_without_a_word() {
    let (config, run) = load(KUBEADM, &["--hostname-override=Node-1"]).unwrap();
    assert_eq!(config.notes, Vec::<String>::new());
    assert_eq!(run.notes, Vec::<String>::new());
    assert_eq!(config.mode, Mode::Iptables);
    assert_eq!(config.node_name.as_deref(), Some("node-1"));
    assert_eq!(
        config.kubeconfig.as_deref(),
        Some(Path::new("/var/lib/kube-proxy/kubeconfig.conf"))
    );
    assert_eq!(
        config.local_traffic,
        LocalTraffic::ClusterCidrs(vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd00:10:244::/56".parse().unwrap()
        ])
    );
    assert_eq!(run.conntrack, ConntrackSettings::default());
    assert_eq!(run.healthz.to_string(), "0.0.0.0:10256");
    assert_eq!(run.metrics.to_string(), "127.0.0.1:10249");
}

#[test]
fn every_field_of_the_file_of_kubeadm_is_in_the_schema_and_the_other_way_round() {
    // What kubeadm leaves out: set only by hand.
    let by_hand = [
        "featureGates",
        "windowsRunAsService",
        "udpIdleTimeout",
        "logging.format",
        "logging.vmodule",
        "logging.options.text.splitStream",
        "logging.options.json.splitStream",
        "iptables.snatNodeInternalIP",
    ];
    let document: serde_json::Value = serde_saphyr::from_str(KUBEADM).unwrap();
    for field in schema::FIELDS {
        let pointer = format!("/{}", field.path.replace('.', "/"));
        assert_eq!(
            document.pointer(&pointer).is_none(),
            by_hand.contains(&field.path),
            "{}",
            field.path
        );
    }
}

#[test]
fn settings_arrive() {
    let file = format!(
        "{HEADER}
mode: ebpf
hostnameOverride: n7
detectLocalMode: BridgeInterface
detectLocal: {{bridgeInterface: cni0}}
iptables: {{masqueradeAll: true}}
nodePortAddresses: [primary, 10.0.0.0/8]
healthzBindAddress: 10.0.0.1
metricsBindAddress: '[::]:9999'
oomScoreAdj: -999
conntrack: {{maxPerCore: 0, min: 7, tcpEstablishedTimeout: 2h, udpTimeout: 30s, tcpBeLiberal: true}}
"
    );
    let (config, run) = load(&file, &[]).unwrap();
    assert_eq!(config.mode, Mode::Ebpf);
    assert_eq!(config.node_name.as_deref(), Some("n7"));
    assert_eq!(config.local_traffic, LocalTraffic::Bridge("cni0".into()));
    assert!(config.masquerade_all);
    let primary = ["fd00::1", "192.168.1.2", "192.168.1.3"].map(|ip| ip.parse().unwrap());
    let networks = config.node_port_addresses.networks(&primary).unwrap();
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.168.1.2/32", "fd00::1/128"]);
    assert_eq!(run.healthz.to_string(), "10.0.0.1:10256");
    assert_eq!(run.metrics.to_string(), "[::]:9999");
    assert_eq!(run.oom_score_adj, Some(-999));
    assert_eq!(run.conntrack.max_per_core, 0);
    assert_eq!(run.conntrack.min, 7);
    assert_eq!(run.conntrack.tcp_established, Duration::from_secs(7200));
    assert_eq!(run.conntrack.udp, Duration::from_secs(30));
    assert!(run.conntrack.tcp_be_liberal);
}

#[test]
fn unknown_fields_and_wrong_values_are_errors_that_name_the_path() {
    let check = |lines: &str, expected: Expect| {
        let refusal = refusal(lines);
        // Without the path of the file.
        let (_, text) = refusal.split_once(": ").unwrap();
        expected.assert_eq(text);
    };
    check(
        "clusterCidr: 10.0.0.0/8",
        expect!["clusterCidr is no field of KubeProxyConfiguration; is clusterCIDR meant?"],
    );
    check(
        "iptables: {masqueradeall: true, foo: 1}",
        expect![
            "iptables.foo is no field of KubeProxyConfiguration; iptables.masqueradeall is no field of KubeProxyConfiguration; is iptables.masqueradeAll meant?"
        ],
    );
    check(
        "conntrack: {min: -1, udpTimeout: 5}",
        expect![
            "conntrack.min is -1, expected a whole number from 0 to 2147483647; conntrack.udpTimeout is 5, expected a duration such as 30s or 1h0m0s"
        ],
    );
    check("conntrack: 5", expect!["conntrack must be an object"]);
    check(
        "oomScoreAdj: -1001",
        expect!["oomScoreAdj is -1001, expected a whole number from -1000 to 1000"],
    );
}

#[test]
fn another_kind_of_file_is_refused() {
    let refusal = |text| load(text, &[]).unwrap_err().to_string();
    assert!(refusal("[]").contains("expected an object of kind KubeProxyConfiguration"));
    assert!(refusal("a: b: c").contains("is not YAML"));
    assert!(refusal("apiVersion: v1\nkind: ConfigMap\n").contains("apiVersion is \"v1\""));
    let missing = Config::for_run(&run_args(&["--config=/nowhere/config.conf"]));
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("cannot read /nowhere/config.conf")
    );
}

#[test]
fn settings_that_cannot_be_are_errors() {
    for (lines, expected) in [
        ("mode: ipvs", "mode: \"ipvs\" is not offered"),
        ("mode: nftables", "give --mode"),
        ("detectLocalMode: Foo", "expected one of ClusterCIDR"),
        (
            "detectLocalMode: BridgeInterface",
            "detectLocal.bridgeInterface",
        ),
        ("clusterCIDR: 10.0.0.0/40", "clusterCIDR"),
        (
            "clusterCIDR: 10.0.0.0",
            "no CIDR: expected an address and a prefix length",
        ),
        ("clusterCIDR: '10.0.0.0/8,11.0.0.0/8'", "more than one CIDR"),
        ("nodePortAddresses: [localhost]", "loopback"),
        ("nodePortAddresses: [127.0.0.0/8]", "loopback"),
        ("nodePortAddresses: [10.0.0.1]", "a CIDR such as"),
        ("bindAddress: 10.0.0.1", "not offered"),
        ("healthzBindAddress: here", "neither IP:PORT nor IP"),
    ] {
        let refusal = refusal(lines);
        assert!(refusal.contains(expected), "{lines}: {refusal}");
    }
}

#[test]
fn what_means_nothing_here_is_named_unless_it_is_kube_proxys_default() {
    assert_eq!(
        notes(
            "iptables: {syncPeriod: 30s, minSyncPeriod: 1000ms, masqueradeBit: 14}\nlogging: {flushFrequency: 5s}\nconfigSyncPeriod: 15m0s",
            &[]
        ),
        Vec::<String>::new()
    );
    expect![[r#"
        enableProfiling (true) has no effect: there is no pprof; use perf(1) on the process, then remove it
        iptables.localhostNodePorts (true) is not offered: node ports do not answer on loopback addresses, which would need route_localnet; use an address of the node, then set it to false
        iptables.masqueradeBit (0) has no effect: the packet mark is fixed, mask 0x000f0000; make sure that nothing else on the node uses these bits, then remove it
        iptables.minSyncPeriod ("5s") has no effect: changes are programmed as they come, and cost what changed; remove it
        featureGates.AllowServiceExternalIPs (true) has no effect: there are no feature gates; external IPs are served within --external-ip-cidrs"#]]
    .assert_eq(
        &notes(
            "enableProfiling: true\nfeatureGates: {AllowServiceExternalIPs: true}\niptables: {localhostNodePorts: true, masqueradeBit: 0, minSyncPeriod: 5s}",
            &[],
        )
        .join("\n"),
    );
}

#[test]
fn a_mode_that_cannot_choose_by_maglev_says_so() {
    let flag = "--load-balancer-algorithm=maglev";
    expect!["--load-balancer-algorithm maglev has no effect in mode iptables, which chooses at random: use --mode ebpf, or random"]
        .assert_eq(&notes("mode: iptables", &[flag]).join("\n"));
    assert_eq!(notes("mode: ebpf", &[flag]), Vec::<String>::new());
}

#[test]
fn flags_that_the_file_hides_are_named_and_the_mode_is_the_nodes() {
    let args = &[
        "--mode=ebpf",
        "--cluster-cidr=10.0.0.0/8",
        "--conntrack-min=5",
        "--external-ip-cidrs=192.0.2.0/24",
        "--iptables-nat-variant=same",
        "--load-balancer-algorithm=maglev",
    ];
    expect![[r#"
        --cluster-cidr is ignored, as in kube-proxy, because --config is given: set clusterCIDR in the file
        --conntrack-min is ignored, as in kube-proxy, because --config is given: set conntrack.min in the file"#]]
    .assert_eq(&notes("mode: iptables", args).join("\n"));
    let (config, _) = load(&format!("{HEADER}mode: nftables"), args).unwrap();
    assert_eq!(config.mode, Mode::Ebpf);
    assert_eq!(config.external_ip_cidrs.len(), 1);
    assert_eq!(config.nat_variant, NatVariant::Same);
    assert_eq!(config.algorithm, Algorithm::Maglev);
    assert_eq!(config.local_traffic, LocalTraffic::ClusterCidrs(Vec::new()));
}

#[test]
fn an_ipv6_bind_address_moves_the_defaults_to_ipv6() {
    let (_, run) = load(&format!("{HEADER}bindAddress: '::'"), &[]).unwrap();
    assert_eq!(run.healthz.to_string(), "[::]:10256");
    assert_eq!(run.metrics.to_string(), "[::1]:10249");
}

#[test]
fn without_a_file_flags_are_all_there_is() {
    let args = run_args(&[
        "--hostname-override= N1 ",
        "--detect-local-mode=NodeCIDR",
        "--conntrack-udp-timeout=30s",
    ]);
    let (config, run) = Config::for_run(&args).unwrap();
    assert_eq!(config.node_name.as_deref(), Some("n1"));
    assert_eq!(config.local_traffic, LocalTraffic::NodeCidrs);
    assert_eq!(config.node_port_addresses, NodePortAddresses::All);
    assert_eq!(run.conntrack.udp, Duration::from_secs(30));
    assert_eq!(run.conntrack.max_per_core, 32768);
}

#[test]
fn what_configz_shows_brings_about_the_same() {
    let of_flags = [
        &[
            "--detect-local-mode=BridgeInterface",
            "--pod-bridge-interface=cni0",
        ][..],
        &[
            "--mode=ebpf",
            "--detect-local-mode=NodeCIDR",
            "--kubeconfig=/k",
            "--oom-score-adj=-999",
        ],
        &[
            "--nodeport-addresses=primary,10.0.0.0/8",
            "--conntrack-udp-timeout=250ms",
        ],
        &[
            "--cluster-cidr=10.244.0.0/16,fd00::/56",
            "--masquerade-all",
            "--hostname-override=n1",
        ],
        &[
            "--healthz-bind-address=[::1]:1",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-be-liberal",
        ],
    ];
    for flags in of_flags {
        let (config, run) = Config::for_run(&run_args(flags)).unwrap();
        let shown = config.configz(&run);
        let (again, run_again) = load(&shown["kubeproxy.config.k8s.io"].to_string(), &[]).unwrap();
        assert_eq!(run_again, run);
        assert_eq!(again.configz(&run_again), shown);
        assert_eq!(again.notes, Vec::<String>::new());
    }
}
