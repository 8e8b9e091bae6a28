use expect_test::expect;

use super::observe::{chains_of, tables_of};
use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_clean_node_with_a_kubelet_and_ourselves_has_no_peers() {
    let traces = Traces {
        chains: names(&[
            "PREROUTING",
            "KUBE-FIREWALL",
            "KUBE-KUBELET-CANARY",
            "KUBE-IPTABLES-HINT",
            "SEAWAY-SERVICES",
            "CNI-HOSTPORT-DNAT",
        ]),
        nft_tables: names(&["ip nat", "ip filter"]),
        links: names(&["lo", "eth0", "seaway.vxlan"]),
        processes: vec![("kubelet".into(), 7), ("seaway-proxy".into(), 8)],
        pins: Vec::new(),
    };
    assert_eq!(find(&traces), []);
}

/// Else nobody could go on from there.
#[test]
fn what_the_cleanup_of_kube_proxy_leaves_is_no_peer() {
    let traces = Traces {
        chains: names(&["KUBE-FIREWALL", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY"]),
        ..Traces::default()
    };
    assert_eq!(find(&traces), []);
}

#[test]
fn each_is_known_by_each_of_its_traces() {
    let chain = |name: &str| Traces {
        chains: names(&[name]),
        ..Traces::default()
    };
    let link = |name: &str| Traces {
        links: names(&[name]),
        ..Traces::default()
    };
    let process = |name: &str| Traces {
        processes: vec![(name.to_owned(), 42)],
        ..Traces::default()
    };
    let table = |name: &str| Traces {
        nft_tables: names(&[name]),
        ..Traces::default()
    };
    let pin = |name: &str| Traces {
        pins: names(&[name]),
        ..Traces::default()
    };
    for (traces, name, in_our_place) in [
        (chain("KUBE-SERVICES"), "kube-proxy", true),
        (table("ip6 kube-proxy"), "kube-proxy", true),
        (link("kube-ipvs0"), "kube-proxy", true),
        (process("kube-proxy"), "kube-proxy", true),
        (chain("CILIUM_POST_nat"), "Cilium", true),
        (link("cilium_host"), "Cilium", true),
        (process("cilium-agent"), "Cilium", true),
        (pin(PINS[0]), "Cilium", true),
        (pin(PINS[1]), "Calico in eBPF mode", true),
        (link("bpfin.cali"), "Calico in eBPF mode", true),
        (chain("cali-PREROUTING"), "Calico", false),
        (process("calico-node"), "Calico", false),
        (process("kube-router"), "kube-router", true),
    ] {
        let found = find(&traces);
        assert_eq!(found.len(), 1, "{traces:?}: {found:?}");
        assert_eq!((found[0].name, found[0].in_our_place), (name, in_our_place));
        assert_eq!(refuse(&found).is_err(), in_our_place, "{name}");
    }
}

#[test]
fn a_refusal_says_by_what_and_what_to_do() {
    let traces = Traces {
        chains: names(&["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-CANARY"]),
        processes: vec![("kube-proxy".into(), 42)],
        ..Traces::default()
    };
    expect!["another proxy serves Services on this node, and two would fight: kube-proxy (chain KUBE-SERVICES, chain KUBE-NODEPORTS, process kube-proxy 42): stop it on this node, then remove its rules with `kube-proxy --cleanup` (docs/replace-kube-proxy.md); to run all the same, give --ignore-other-proxies"]
    .assert_eq(&refuse(&find(&traces)).unwrap_err().to_string());
}

#[test]
fn what_tools_print_is_read() {
    let saved = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n";
    let chains: Vec<_> = chains_of(saved).collect();
    assert_eq!(chains, ["PREROUTING", "KUBE-SERVICES"]);
    assert_eq!(
        tables_of("table ip nat\ntable ip6 kube-proxy\n"),
        ["ip nat", "ip6 kube-proxy"]
    );
}
