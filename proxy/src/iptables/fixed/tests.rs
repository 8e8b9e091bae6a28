use expect_test::{Expect, expect};
use seaway_model::{DetectLocal, Family};

use super::*;

fn settings(cidrs: &[&str]) -> Settings {
    let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Settings::new(Family::V4, &DetectLocal::ClusterCidr(cidrs))
}

/// The chains of these names, as written.
fn check(settings: &Settings, names: &[&str], expected: &Expect) {
    let mut text = String::new();
    for (id, rules) in chains(settings) {
        if names.contains(&id.name.as_str()) {
            text += &format!("{} {}\n", id.table.as_str(), id.name);
            for rule in rules.iter() {
                text += &format!("  {}\n", render::rule(rule, Family::V4));
            }
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn the_kernel_leads_new_connections_to_us() {
    let built_in = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    check(
        &settings(&[]),
        &built_in,
        &expect![[r#"
            nat PREROUTING
              -j SEAWAY-SERVICES
            nat OUTPUT
              -j SEAWAY-SERVICES
            nat POSTROUTING
              -j SEAWAY-POSTROUTING
            filter INPUT
              -m conntrack --ctstate NEW -j SEAWAY-FILTER
            filter OUTPUT
              -m conntrack --ctstate NEW -j SEAWAY-FILTER
            filter FORWARD
              -j SEAWAY-FORWARD
        "#]],
    );
    for (id, _) in chains(&settings(&["10.244.1.0/24", "10.244.2.0/24"])) {
        let ours = id.name.as_str().starts_with("SEAWAY-");
        assert_eq!(is_built_in(&id), !ours, "{id:?}");
    }
}

#[test]
fn what_nat_has_marked_is_refused_in_filter() {
    let names = [
        names::REJECT,
        names::DROP,
        names::FILTER,
        names::UNKNOWN_PORT,
    ];
    check(
        &settings(&[]),
        &names,
        &expect![[r#"
        nat SEAWAY-REJECT
          -j MARK --set-xmark 0x20000/0x20000
          -j ACCEPT
        nat SEAWAY-DROP
          -j MARK --set-xmark 0x40000/0x40000
          -j ACCEPT
        filter SEAWAY-UNKNOWN-PORT
          -p tcp -j REJECT --reject-with tcp-reset
          -p udp -j REJECT --reject-with icmp-port-unreachable
          -p sctp -j REJECT --reject-with icmp-port-unreachable
        filter SEAWAY-FILTER
          -p tcp -m comment --comment "Service without endpoints" -m mark --mark 0x20000/0x20000 -j REJECT --reject-with tcp-reset
          -m comment --comment "Service without endpoints" -m mark --mark 0x20000/0x20000 -j REJECT --reject-with icmp-port-unreachable
          -m comment --comment "no endpoint allowed by policy, or source not allowed" -m mark --mark 0x40000/0x40000 -j DROP
          -m conntrack --ctstate DNAT -j RETURN
          -j SEAWAY-CLUSTER-IPS
    "#]],
    );
}

#[test]
fn ports_that_a_cluster_ip_lacks_can_be_refused_by_way_of_nat() {
    let settings = Settings {
        unknown_ports: Table::Nat,
        ..settings(&[])
    };
    let names = [names::FILTER, names::UNKNOWN_PORT];
    check(
        &settings,
        &names,
        &expect![[r#"
        nat SEAWAY-UNKNOWN-PORT
          -p tcp -j SEAWAY-REJECT
          -p udp -j SEAWAY-REJECT
          -p sctp -j SEAWAY-REJECT
        filter SEAWAY-FILTER
          -p tcp -m comment --comment "Service without endpoints" -m mark --mark 0x20000/0x20000 -j REJECT --reject-with tcp-reset
          -m comment --comment "Service without endpoints" -m mark --mark 0x20000/0x20000 -j REJECT --reject-with icmp-port-unreachable
          -m comment --comment "no endpoint allowed by policy, or source not allowed" -m mark --mark 0x40000/0x40000 -j DROP
    "#]],
    );
}

#[test]
fn forwarded_packets_of_services_are_let_through() {
    check(
        &settings(&[]),
        &[names::FORWARD],
        &expect![[r#"
        filter SEAWAY-FORWARD
          -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
          -m conntrack --ctstate INVALID -j DROP
          -m conntrack --ctstate NEW -j SEAWAY-FILTER
          -m mark --mark 0x10000/0x10000 -j ACCEPT
    "#]],
    );
    let settings = Settings {
        drop_invalid: false,
        ..settings(&[])
    };
    check(
        &settings,
        &[names::FORWARD],
        &expect![[r#"
        filter SEAWAY-FORWARD
          -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
          -m conntrack --ctstate NEW -j SEAWAY-FILTER
          -m mark --mark 0x10000/0x10000 -j ACCEPT
    "#]],
    );
}

#[test]
fn masquerade_is_for_what_is_marked_and_for_whom_reached_himself() {
    check(
        &settings(&[]),
        &[names::POSTROUTING],
        &expect![[r#"
        nat SEAWAY-POSTROUTING
          -m comment --comment "endpoint that reached itself" -m conntrack --ctstate DNAT -m bpf --bytecode "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0" -j MASQUERADE --random-fully
          -m mark ! --mark 0x10000/0x10000 -j RETURN
          -j MARK --set-xmark 0x0/0x10000
          -j MASQUERADE --random-fully
    "#]],
    );
    let settings = Settings {
        random_fully: false,
        ..settings(&[])
    };
    check(
        &settings,
        &[names::POSTROUTING],
        &expect![[r#"
        nat SEAWAY-POSTROUTING
          -m comment --comment "endpoint that reached itself" -m conntrack --ctstate DNAT -m bpf --bytecode "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0" -j MASQUERADE
          -m mark ! --mark 0x10000/0x10000 -j RETURN
          -j MARK --set-xmark 0x0/0x10000
          -j MASQUERADE
    "#]],
    );
}

#[test]
fn several_pod_ranges_need_a_chain() {
    let names = [names::NOT_FROM_POD];
    check(&settings(&["10.244.1.0/24"]), &names, &expect![[""]]);
    check(
        &settings(&["10.244.1.0/24", "10.244.2.0/24"]),
        &names,
        &expect![[r#"
        nat SEAWAY-NOT-FROM-POD
          -s 10.244.1.0/24 -j RETURN
          -s 10.244.2.0/24 -j RETURN
          -j MARK --set-xmark 0x10000/0x10000
    "#]],
    );
}
