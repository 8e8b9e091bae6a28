use seaway_kernel::LinkKind;

use super::*;

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: LinkKind::Device,
        mtu: 1500,
        mac: None,
        up: true,
        running: true,
        master: None,
        peer: None,
        peer_netns: None,
    }
}

fn address(link: u32, network: &str, scope: Scope) -> Address {
    Address {
        link,
        network: network.parse().expect("a network"),
        scope,
    }
}

fn node() -> NodeView {
    let links = [
        link(1, "lo"),
        link(2, "eth0"),
        link(3, "eth1"),
        link(4, VXLAN_LINK),
        link(5, "sw0123456789a"),
        link(6, "swift0"),
        link(7, "idle"),
    ];
    let addresses = [
        address(1, "127.0.0.1/8", Scope::Host),
        address(2, "192.168.100.1/24", Scope::Global),
        address(3, "172.16.0.1/24", Scope::Global),
        address(4, "10.244.1.0/32", Scope::Global),
        address(2, "fd00::1/64", Scope::Global),
    ];
    let mut default = Route::new("0.0.0.0/0".parse().expect("a network"), 3);
    default.link = Some(3);
    view(&links, &addresses, &[default], None)
}

#[test]
fn links_have_their_roles() {
    let roles: Vec<(u32, Role)> = node().links.iter().map(|(i, l)| (*i, l.role)).collect();
    assert_eq!(
        roles,
        [
            (2, Role::Uplink),
            (3, Role::Uplink),
            (4, Role::Overlay),
            (5, Role::Pod)
        ]
    );
}

#[test]
fn the_default_route_says_which_address_is_the_nodes() {
    let view = node();
    assert_eq!(view.node_addr, Some(Ipv4Addr::new(172, 16, 0, 1)));
    assert_eq!(view.overlay_addr, Some(Ipv4Addr::new(10, 244, 1, 0)));
    assert_eq!(view.overlay_ifindex, Some(4));
    assert_eq!(view.addresses.len(), 3);
}

#[test]
fn ports_to_masquerade_with_lie_beside_those_of_sockets() {
    for (sockets, expected) in [
        ((32_768, 60_999), (1024, 32_767)),
        ((1024, 40_000), (40_001, 65_535)),
        ((1024, 65_535), (32_768, 65_535)),
    ] {
        assert_eq!(snat_ports(sockets), expected, "{sockets:?}");
    }
}

#[test]
fn the_configuration_is_in_network_order() {
    let settings = EbpfConfig {
        cluster_cidrs: vec![
            "10.244.0.0/16".parse().expect("a network"),
            "fd00::/48".parse().expect("a network"),
        ],
        ..EbpfConfig::new("n1", "/sys/fs/cgroup")
    };
    let config = config(&node(), &settings, 7, (32_768, 60_999));
    assert_eq!(config.cidr_count, 1);
    assert!(config.in_cluster(bits(Ipv4Addr::new(10, 244, 9, 9))));
    assert!(!config.in_cluster(bits(Ipv4Addr::new(10, 245, 0, 1))));
    assert_eq!(config.node_addr.to_ne_bytes(), [172, 16, 0, 1]);
}
