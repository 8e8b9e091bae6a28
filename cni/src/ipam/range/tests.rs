use super::*;

fn config(text: &str) -> RangeConfig {
    serde_json::from_str(text).unwrap()
}

fn refused(lists: &[&[&str]]) -> String {
    let lists: Vec<Vec<_>> = lists
        .iter()
        .map(|list| list.iter().map(|text| config(text)).collect())
        .collect();
    of_config(&lists).unwrap_err().to_string()
}

#[test]
fn a_subnet_alone_has_host_locals_defaults() {
    let range = Range::of_config(&config(r#"{"subnet":"10.1.2.0/24"}"#)).unwrap();
    assert_eq!(range.gateway, Some("10.1.2.1".parse().unwrap()));
    assert_eq!(range.behind(None).next(), Some("10.1.2.2".parse().unwrap()));
    assert_eq!(
        range.behind(None).last(),
        Some("10.1.2.254".parse().unwrap())
    );
    assert_eq!(range.size(), 253);
    assert_eq!(range.to_string(), "10.1.2.0/24");
    let text = r#"{"subnet":"fd00::/64","rangestart":"fd00::10","rangeend":"fd00::1f","gateway":"fd00::1f"}"#;
    let range = Range::of_config(&config(text)).unwrap();
    assert_eq!(range.size(), 15);
    assert!(!range.contains("fd00::1f".parse().unwrap()));
    assert_eq!(range.to_string(), "fd00::10-fd00::1f");
}

#[test]
fn what_cannot_be_served_is_named() {
    let one = |text: &str| refused(&[&[text]]);
    assert_eq!(
        one(r#"{"subnet":"10.1.2.3/24"}"#),
        "ipam: subnet 10.1.2.3/24 has host bits set; expected 10.1.2.0/24"
    );
    assert_eq!(
        one(r#"{"subnet":"10.1.2.0/31"}"#),
        "ipam: subnet 10.1.2.0/31 is too small: no address is left for a pod"
    );
    assert_eq!(
        one(r#"{"subnet":"10.1.2.0/24","rangestart":"10.1.3.1"}"#),
        "ipam: rangeStart 10.1.3.1 is not in subnet 10.1.2.0/24"
    );
    assert_eq!(
        one(r#"{"subnet":"10.1.2.0/24","rangeend":"10.1.2.255"}"#),
        "ipam: rangeEnd 10.1.2.255 is the network's or the broadcast address of subnet 10.1.2.0/24"
    );
    assert_eq!(
        one(r#"{"subnet":"10.1.2.0/24","rangestart":"10.1.2.9","rangeend":"10.1.2.3"}"#),
        "ipam: rangeStart 10.1.2.9 is behind rangeEnd 10.1.2.3"
    );
    let (a, b) = (r#"{"subnet":"10.1.0.0/16"}"#, r#"{"subnet":"10.1.2.0/24"}"#);
    let overlap = "ipam: the ranges 10.1.0.0/16 and 10.1.2.0/24 overlap";
    assert_eq!(refused(&[&[a, b]]), overlap);
    assert_eq!(refused(&[&[a], &[b]]), overlap);
    assert_eq!(
        refused(&[&[a, r#"{"subnet":"fd00::/64"}"#]]),
        "ipam: the ranges 10.1.0.0/16 and fd00::/64 of one list are of different families"
    );
    assert_eq!(refused(&[&[]]), "ipam: a list of ranges is empty");
}
