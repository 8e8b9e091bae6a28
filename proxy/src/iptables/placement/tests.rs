use super::*;
use IptablesVariant::{Legacy, NfTables};

const HINT: &str = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
const OUR_FILTER: &str = "*filter\n:SEAWAY-FILTER - [0:0]\n-A INPUT -j SEAWAY-FILTER\nCOMMIT\n";
const OUR_NAT: &str = "*nat\n:SEAWAY-SERVICES - [0:0]\n-A OUTPUT -j SEAWAY-SERVICES\n-A SEAWAY-SERVICES -j RETURN\nCOMMIT\n";
const OVERLAY: &str = "*nat\n:SEAWAY-EGRESS - [0:0]\n-A POSTROUTING -j SEAWAY-EGRESS\nCOMMIT\n";
const OTHERS: &str = "*nat\n-A PREROUTING -j ACCEPT\n-A OUTPUT -j ACCEPT\nCOMMIT\n";
const NEW: (u32, u32) = (6, 1);

fn evidence(saved: &str) -> Evidence {
    let mut evidence = Evidence::default();
    evidence.add(saved);
    evidence
}

/// A machine on which the variants have saved this; `None`: not installed.
fn node(nft: Option<&str>, legacy: Option<&str>, plain: Option<IptablesVariant>) -> Node {
    let of = |saved: Option<&str>, name: &str| {
        saved
            .map(evidence)
            .ok_or_else(|| format!("{name} is not installed"))
    };
    Node {
        nft: of(nft, "iptables-nft"),
        legacy: of(legacy, "iptables-legacy"),
        plain,
        kernel: NEW,
        nft_refused: None,
    }
}

fn check(
    (nft, legacy, plain): (Option<&str>, Option<&str>, Option<IptablesVariant>),
    setting: NatVariant,
    expected: Option<&str>,
) {
    let node = node(nft, legacy, plain);
    let choice = choose(&node, setting).map(|choice| choice.placement.to_string());
    assert_eq!(choice.as_deref(), expected, "{node:?} {setting:?}");
}

const SPLIT: Option<&str> = Some("filter=legacy nat=nft");
const ALL_LEGACY: Option<&str> = Some("filter=legacy nat=legacy");
const ALL_NFT: Option<&str> = Some("filter=nft nat=nft");

#[test]
fn the_kubelet_decides_then_our_filter_rules_then_the_number_of_rules_of_others() {
    for (nft, legacy, plain, expected) in [
        (OTHERS, HINT, None, SPLIT),
        (HINT, OUR_FILTER, None, ALL_NFT),
        (OTHERS, OUR_FILTER, None, SPLIT),
        ("", OTHERS, Some(NfTables), SPLIT),
        (OTHERS, "", Some(Legacy), ALL_NFT),
        (OVERLAY, "", None, ALL_NFT),
        ("", OVERLAY, None, SPLIT),
    ] {
        let node = (Some(nft), Some(legacy), plain);
        check(node, NatVariant::Auto, expected);
    }
}

#[test]
fn an_empty_machine_takes_what_plain_iptables_is() {
    use NatVariant::Auto;
    check((Some(""), Some(""), Some(Legacy)), Auto, SPLIT);
    check((Some(""), Some(""), Some(NfTables)), Auto, ALL_NFT);
    check((Some(""), Some(""), None), Auto, ALL_NFT);
    check((None, Some(""), Some(NfTables)), Auto, ALL_LEGACY);
    check((None, None, Some(NfTables)), Auto, None);
}

#[test]
fn our_nat_rules_do_not_say_which_variant_the_node_uses() {
    use NatVariant::{Auto, Same};
    // As written on a legacy node, then read again by the next start.
    check((Some(OUR_NAT), Some(OUR_FILTER), Some(Legacy)), Auto, SPLIT);
    check(
        (Some(OUR_NAT), Some(OUR_FILTER), Some(NfTables)),
        Auto,
        SPLIT,
    );
    // Somebody has flushed the filter rules meanwhile: ours in nat are more than those of others, and do not count.
    check((Some(OUR_NAT), Some(""), Some(Legacy)), Auto, SPLIT);
    let one = "*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n";
    check((Some(OUR_NAT), Some(one), Some(NfTables)), Auto, SPLIT);
    // From all legacy to split and back: the node's own variant stays.
    let all = format!("{OUR_NAT}{OUR_FILTER}");
    check((Some(""), Some(&all), Some(Legacy)), Auto, SPLIT);
    check(
        (Some(OUR_NAT), Some(OUR_FILTER), Some(Legacy)),
        Same,
        ALL_LEGACY,
    );
    check((Some(OUR_NAT), Some(&all), Some(Legacy)), Auto, SPLIT);
    check((Some(&all), Some(""), Some(Legacy)), Auto, ALL_NFT);
}

#[test]
fn the_setting_counts_on_a_legacy_node_only() {
    for (setting, on_legacy) in [
        (NatVariant::Auto, SPLIT),
        (NatVariant::Same, ALL_LEGACY),
        (NatVariant::Nft, SPLIT),
    ] {
        check((Some(""), Some(""), Some(Legacy)), setting, on_legacy);
        check((Some(""), Some(""), Some(NfTables)), setting, ALL_NFT);
    }
}

#[test]
fn what_keeps_us_from_the_nft_variant_is_named() {
    let legacy = || node(Some(""), Some(OTHERS), Some(Legacy));
    let chosen = |node: Node, expected: Option<&str>| {
        let choice = choose(&node, NatVariant::Auto).unwrap();
        assert_eq!(choice.obstacle.as_deref(), expected);
        assert_eq!(choice.placement.is_split(), expected.is_none());
        assert_eq!(choice.placement.filter, Legacy);
    };
    chosen(legacy(), None);
    let absent = node(None, Some(OTHERS), Some(Legacy));
    chosen(absent, Some("iptables-nft is not installed"));
    let old = Node {
        kernel: (4, 17),
        ..legacy()
    };
    let expected = "Linux 4.17 has room for one nat table only, 4.18 for both";
    chosen(old, Some(expected));
    let refused = Node {
        nft_refused: Some("no xt_recent".into()),
        ..legacy()
    };
    chosen(refused, Some("no xt_recent"));
    // Nothing of it matters to a node whose own variant is nft.
    let nft = Node {
        kernel: (4, 17),
        nft_refused: Some("no xt_recent".into()),
        ..node(Some(OTHERS), Some(""), Some(NfTables))
    };
    let choice = choose(&nft, NatVariant::Auto).unwrap();
    assert_eq!(choice.placement, Placement::whole(NfTables));
    assert_eq!(choice.obstacle, None);
}

#[test]
fn what_a_variant_must_not_hold() {
    let split = Placement {
        filter: Legacy,
        nat: NfTables,
    };
    assert_eq!(split.foreign_tables(Legacy), [Table::Nat]);
    assert_eq!(split.foreign_tables(NfTables), [Table::Filter]);
    let whole = Placement::whole(Legacy);
    assert_eq!(whole.foreign_tables(Legacy), []);
    assert_eq!(whole.foreign_tables(NfTables), Table::ALL);
    for placement in [split, whole] {
        let shares = placement.shares();
        let tables: Vec<_> = shares.iter().flat_map(|share| share.tables).collect();
        assert_eq!(tables, Table::ALL.iter().collect::<Vec<_>>());
    }
}
