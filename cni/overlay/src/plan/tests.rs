use super::*;
use crate::testing::{self, plan};

fn member(name: &str, addresses: &[&str], cidrs: &[&str]) -> Member {
    Member {
        name: name.into(),
        address: addresses[0].parse().unwrap(),
        second: addresses.get(1).map(|a| a.parse().unwrap()),
        pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
    }
}

fn settings() -> Settings {
    Settings {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..testing::settings()
    }
}

fn underlay(v4_mtu: u32, v6_mtu: u32) -> Underlay {
    let uplink = |index, mtu, network: &str| Uplink {
        index,
        name: format!("eth{index}"),
        mtu,
        merged: true,
        network: network.parse().unwrap(),
    };
    Underlay {
        v4: Some(uplink(2, v4_mtu, "192.168.0.1/24")),
        v6: Some(uplink(3, v6_mtu, "fd00::1/64")),
    }
}

fn text(desired: &Desired) -> String {
    let mut text = format!("mtu {}\n", desired.device.mtu);
    for (destination, hop) in &desired.routes {
        text += &format!("{}\n", hop.route(*destination, 7));
    }
    for (gateway, mac) in &desired.neighbours {
        text += &format!("{gateway} is {mac}\n");
    }
    for address in &desired.known {
        text += &format!("from {address}\n");
    }
    text
}

fn planned(own: &Member, peers: &[Member], settings: &Settings, underlay: &Underlay) -> String {
    text(&plan(own, peers, settings, underlay, &Findings::default()))
}

#[test]
fn a_peer_is_one_route_and_one_neighbour_per_family() {
    let own = member("n1", &["192.168.0.1"], &["10.244.1.0/24"]);
    let peer = member("n2", &["192.168.0.2"], &["10.244.2.7/24", "fd01:2::/64"]);
    expect_test::expect![[r#"
        mtu 1450
        10.244.2.0/24 encap id 1 src 192.168.0.1 dst 192.168.0.2 via 10.244.2.0 dev #7
        fd01:2::/64 encap id 1 src 192.168.0.1 dst 192.168.0.2 via fd01:2:: dev #7
        10.244.2.0 is 02:53:c0:a8:00:02
        fd01:2:: is 02:53:c0:a8:00:02
        from 192.168.0.2
    "#]]
    .assert_eq(&planned(&own, &[peer], &settings(), &underlay(1500, 1500)));
}

#[test]
fn the_mtu_is_the_least_of_the_families_in_use() {
    let own = member("n1", &["192.168.0.1", "fd00::1"], &["10.244.1.0/24"]);
    let four = member("n2", &["fd00::2", "192.168.0.2"], &["10.244.2.0/24"]);
    let six = member("n3", &["fd00::3"], &["10.244.3.0/24"]);
    let mtu = |own: &Member, peers: &[Member], underlay: &Underlay| {
        let desired = plan(own, peers, &settings(), underlay, &Findings::default());
        desired.device.mtu
    };
    let usual = underlay(1500, 1500);
    assert_eq!(mtu(&own, &[], &usual), 1450);
    assert_eq!(mtu(&own, std::slice::from_ref(&four), &usual), 1450);
    assert_eq!(mtu(&own, &[four.clone(), six.clone()], &usual), 1430);
    assert_eq!(mtu(&own, &[four, six], &underlay(1400, 9000)), 1350);
    let own = member("n1", &["fd00::1"], &["10.244.1.0/24"]);
    assert_eq!(mtu(&own, &[], &usual), 1430);
}

#[test]
fn an_ipv6_underlay_carries_both_families_with_outer_checksums() {
    let own = member("n1", &["fd00::1"], &["10.244.1.0/24", "fd01:1::/64"]);
    let peer = member("n2", &["fd00::2"], &["10.244.2.0/24", "fd01:2::/64"]);
    let desired = plan(
        &own,
        &[peer],
        &settings(),
        &underlay(1500, 1500),
        &Findings::default(),
    );
    assert!(desired.routes.values().all(|hop| matches!(
        hop.way,
        Way::Tunnel { encap, .. } if encap.checksum
    )));
    expect_test::expect![[r#"
        mtu 1430
        10.244.2.0/24 encap id 1 src fd00::1 dst fd00::2 via 10.244.2.0 dev #7
        fd01:2::/64 encap id 1 src fd00::1 dst fd00::2 via fd01:2:: dev #7
        10.244.2.0 is 02:53:fd:00:00:02
        fd01:2:: is 02:53:fd:00:00:02
        from fd00::2
    "#]]
    .assert_eq(&text(&desired));
}

#[test]
fn peers_of_the_subnet_are_reached_directly_where_asked() {
    let own = member(
        "n1",
        &["192.168.0.1", "fd00::1"],
        &["10.244.1.0/24", "fd01:1::/64"],
    );
    let near = member(
        "n2",
        &["192.168.0.2", "fd00::2"],
        &["10.244.2.0/24", "fd01:2::/64"],
    );
    // Of the subnet by one family only.
    let half = member("n3", &["192.168.0.3"], &["10.244.3.0/24", "fd01:3::/64"]);
    let far = member("n4", &["192.168.1.4"], &["10.244.4.0/24"]);
    let settings = Settings {
        direct_routing: true,
        ..settings()
    };
    expect_test::expect![[r#"
        mtu 1450
        10.244.2.0/24 via 192.168.0.2 dev #2
        10.244.3.0/24 via 192.168.0.3 dev #2
        10.244.4.0/24 encap id 1 src 192.168.0.1 dst 192.168.1.4 via 10.244.4.0 dev #7
        fd01:2::/64 via fd00::2 dev #3
        fd01:3::/64 encap id 1 src 192.168.0.1 dst 192.168.0.3 via fd01:3:: dev #7
        10.244.4.0 is 02:53:c0:a8:01:04
        fd01:3:: is 02:53:c0:a8:00:03
        from 192.168.0.2
        from 192.168.0.3
        from 192.168.1.4
        from fd00::2
    "#]]
    .assert_eq(&planned(
        &own,
        &[near, half, far],
        &settings,
        &underlay(1500, 1500),
    ));
}

#[test]
fn what_probing_found_is_worked_around_for_that_peer_alone() {
    let own = member("n1", &["192.168.0.1"], &["10.244.1.0/24"]);
    let peers = [2, 3].map(|n| {
        let address = format!("192.168.0.{n}");
        member(
            &format!("n{n}"),
            &[&address],
            &[&format!("10.244.{n}.0/24")],
        )
    });
    let findings = Findings {
        // The second is no less than it should be.
        mtu: BTreeMap::from([("n2".into(), 1400), ("n3".into(), 1450)]),
        offload_broken: true,
    };
    let underlay = underlay(1500, 1500);
    let offload = |checksum_offload| {
        let settings = Settings {
            checksum_offload,
            ..settings()
        };
        let desired = plan(&own, &peers, &settings, &underlay, &findings);
        let mtus: Vec<_> = desired.routes.values().map(|hop| hop.mtu).collect();
        assert_eq!(mtus, [Some(1400), None]);
        desired.device.checksum_offload
    };
    assert!(!offload(ChecksumOffload::Auto));
    assert!(offload(ChecksumOffload::On));
    let none = plan(&own, &[], &settings(), &underlay, &Findings::default());
    assert!(none.device.checksum_offload);
}

#[test]
fn the_device_takes_packets_together_where_no_uplink_does() {
    let own = member("n1", &["192.168.0.1"], &["10.244.1.0/24"]);
    let offload = |receive_offload, merged: [bool; 2]| {
        let settings = Settings {
            receive_offload,
            ..settings()
        };
        let mut underlay = underlay(1500, 1500);
        underlay.v4.as_mut().unwrap().merged = merged[0];
        underlay.v6.as_mut().unwrap().merged = merged[1];
        let desired = plan(&own, &[], &settings, &underlay, &Findings::default());
        desired.device.receive_offload
    };
    for (merged, wanted) in [
        ([true, true], false),
        ([false, true], true),
        ([true, false], true),
    ] {
        assert_eq!(offload(ReceiveOffload::Auto, merged), wanted, "{merged:?}");
        assert!(offload(ReceiveOffload::On, merged));
        assert!(!offload(ReceiveOffload::Off, merged));
    }
}
