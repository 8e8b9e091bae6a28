use seaway_kernel::{Link, LinkKind, Neighbour, VxlanSettings};

use super::*;
use crate::mesh::Member;
use crate::plan::{Settings, plan};

fn member(number: u8) -> Member {
    Member {
        name: format!("n{number}").into(),
        address: format!("192.168.0.{number}").parse().unwrap(),
        pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
    }
}

fn desired(peers: &[u8]) -> Desired {
    let peers: Vec<_> = peers.iter().map(|n| member(*n)).collect();
    let settings = Settings {
        cluster_cidrs: Vec::new(),
        vni: 1,
        port: 8472,
    };
    plan(&member(1), &peers, &settings, 1500)
}

/// What would be seen once everything was applied.
fn applied(desired: &Desired) -> Observed {
    let vxlan = VxlanSettings {
        external: true,
        port: desired.device.port,
        learning: false,
        vni: 0,
        lower: None,
    };
    let link = Link {
        index: 7,
        name: VXLAN_LINK.into(),
        kind: LinkKind::Vxlan(vxlan),
        mtu: desired.device.mtu,
        mac: Some(desired.device.mac),
        up: true,
        running: true,
        master: None,
        peer: None,
        peer_netns: None,
    };
    Observed {
        device: Some(DeviceSeen {
            link,
            vxlan: Some(vxlan),
        }),
        addresses: desired.addresses.clone(),
        routes: desired.routes.iter().map(|(d, t)| t.route(*d, 7)).collect(),
        neighbours: desired
            .neighbours
            .iter()
            .map(|(address, mac)| Neighbour {
                link: 7,
                address: *address,
                mac: Some(*mac),
                permanent: true,
            })
            .collect(),
        settings: desired
            .settings
            .iter()
            .map(|(k, v)| (k.clone(), (*v).to_owned()))
            .collect(),
    }
}

fn text(desired: &Desired, observed: &Observed) -> String {
    diff(desired, observed)
        .iter()
        .map(|operation| format!("{operation}\n"))
        .collect()
}

#[test]
fn from_nothing() {
    expect_test::expect![[r#"
        create seaway.vxlan port 8472 address 02:53:c0:a8:00:01 mtu 1450
        set seaway.vxlan up
        sysctl net/ipv4/conf/seaway.vxlan/rp_filter=2
        sysctl net/ipv4/ip_forward=1
        add address 10.244.1.0/32
        set neighbour 10.244.2.0 lladdr 02:53:c0:a8:00:02
        set route 10.244.2.0/24 encap id 1 dst 192.168.0.2 via 10.244.2.0
    "#]]
    .assert_eq(&text(&desired(&[2]), &Observed::default()));
}

#[test]
fn what_is_right_is_not_touched() {
    let wanted = desired(&[2, 3]);
    assert_eq!(text(&wanted, &applied(&wanted)), "");
}

#[test]
fn peers_come_go_and_move() {
    let observed = applied(&desired(&[2, 3]));
    let mut wanted = desired(&[2, 4]);
    let moved = "10.244.2.0/24".parse().unwrap();
    wanted.routes.get_mut(&moved).unwrap().encap.remote = "192.168.0.22".parse().unwrap();
    expect_test::expect![[r#"
        set neighbour 10.244.4.0 lladdr 02:53:c0:a8:00:04
        set route 10.244.2.0/24 encap id 1 dst 192.168.0.22 via 10.244.2.0
        set route 10.244.4.0/24 encap id 1 dst 192.168.0.4 via 10.244.4.0
        delete route 10.244.3.0/24 encap id 1 dst 192.168.0.3 via 10.244.3.0 dev #7
        delete neighbour 10.244.3.0
    "#]]
    .assert_eq(&text(&wanted, &observed));
}

#[test]
fn a_device_is_changed_in_place_where_that_is_possible() {
    let wanted = desired(&[]);
    let mut observed = applied(&wanted);
    let link = &mut observed.device.as_mut().unwrap().link;
    (link.mtu, link.mac, link.up) = (1400, None, false);
    expect_test::expect![[r#"
        set seaway.vxlan address 02:53:c0:a8:00:01
        set seaway.vxlan mtu 1450
        set seaway.vxlan up
    "#]]
    .assert_eq(&text(&wanted, &observed));

    let vxlan = observed.device.as_mut().unwrap();
    vxlan.vxlan.as_mut().unwrap().port = 4789;
    expect_test::expect![[r#"
        delete seaway.vxlan (not as wanted)
        create seaway.vxlan port 8472 address 02:53:c0:a8:00:01 mtu 1450
        set seaway.vxlan up
        sysctl net/ipv4/conf/seaway.vxlan/rp_filter=2
        add address 10.244.1.0/32
    "#]]
    .assert_eq(&text(&wanted, &observed));
}
