use super::*;
use IptablesVariant::{Legacy, NfTables};

fn check(
    nft: Option<&str>,
    legacy: Option<&str>,
    default: Option<IptablesVariant>,
    expected: Option<IptablesVariant>,
) {
    let saved: Vec<_> = [(NfTables, nft), (Legacy, legacy)]
        .into_iter()
        .filter_map(|(variant, text)| {
            let family = Family::V4;
            Some((Tool { family, variant }, text?.to_owned()))
        })
        .collect();
    assert_eq!(choose(&saved, default), expected, "{saved:?}");
}

#[test]
fn the_kubelet_decides_then_our_rules_then_the_number_of_rules() {
    let hint = ":KUBE-KUBELET-CANARY - [0:0]\n";
    let ours = ":SEAWAY-SERVICES - [0:0]\n";
    let rules = "-A INPUT -j ACCEPT\n-A INPUT -j DROP\n";
    check(Some(rules), Some(hint), None, Some(Legacy));
    check(Some(hint), Some(ours), None, Some(NfTables));
    check(Some(rules), Some(ours), None, Some(Legacy));
    check(Some(""), Some(rules), Some(NfTables), Some(Legacy));
    check(Some(rules), Some(""), Some(Legacy), Some(NfTables));
}

#[test]
fn an_empty_machine_takes_what_plain_iptables_is() {
    check(Some(""), Some(""), Some(Legacy), Some(Legacy));
    check(Some(""), Some(""), Some(NfTables), Some(NfTables));
    check(Some(""), Some(""), None, Some(NfTables));
    check(None, Some(""), Some(NfTables), Some(Legacy));
    check(None, None, Some(NfTables), None);
}

#[test]
fn an_error_shows_the_line_it_is_about() {
    let input = "*nat\n-A X -j NONE\nCOMMIT\n";
    assert_eq!(
        point_at_line("iptables-restore: line 2 failed", input),
        "iptables-restore: line 2 failed — that line is: -A X -j NONE"
    );
    assert_eq!(
        point_at_line("Error occurred at line: 2\nTry help", input),
        "Error occurred at line: 2\nTry help — that line is: -A X -j NONE"
    );
    assert_eq!(point_at_line("line 99 failed", input), "line 99 failed");
    assert_eq!(point_at_line("no lock", input), "no lock");
}
