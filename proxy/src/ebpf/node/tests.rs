use seaway_kernel::LinkKind;

use super::*;

pub(super) fn link(index: u32, name: &str) -> Link {
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
        framing: Framing::Ethernet,
        peer_netns: None,
    }
}

pub(super) fn address(link: u32, network: &str, scope: Scope) -> Address {
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
        address(2, "fe80::1/64", Scope::Link),
        address(2, "fd00::1/64", Scope::Global),
    ];
    let mut default = Route::new("0.0.0.0/0".parse().expect("a network"), 3);
    default.link = Some(3);
    view(&links, &addresses, &[default], &DetectLocal::default())
}

#[test]
fn links_without_ethernet_headers_are_told_apart() {
    let links = [
        ("eth0", Framing::Ethernet),
        ("wg0", Framing::None),
        ("ib0", Framing::Other),
        ("tun0", Framing::None),
    ];
    let links: Vec<Link> = links
        .iter()
        .zip(2..)
        .map(|((name, framing), index)| Link {
            framing: *framing,
            ..link(index, name)
        })
        .collect();
    let addresses = [
        address(2, "192.168.100.1/24", Scope::Global),
        address(3, "10.9.0.1/24", Scope::Global),
        address(4, "10.8.0.1/24", Scope::Global),
    ];
    let seen = view(&links, &addresses, &[], &DetectLocal::default());
    let bare: Vec<_> = seen.links.iter().map(|(i, l)| (*i, l.bare)).collect();
    assert_eq!(bare, [(2, false), (3, true)]);
    assert_eq!(seen.unframed, BTreeSet::from(["ib0".to_owned()]));
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
fn where_pods_are_known_by_links_those_links_are_theirs() {
    for (detect_local, link, expected) in [
        (
            DetectLocal::BridgeInterface("cni0".to_owned()),
            "cni0",
            Some(Role::Pod),
        ),
        (
            DetectLocal::BridgeInterface("cni0".to_owned()),
            "cni01",
            None,
        ),
        (
            DetectLocal::InterfaceNamePrefix("veth".to_owned()),
            "veth7",
            Some(Role::Pod),
        ),
        (
            DetectLocal::InterfaceNamePrefix("sea".to_owned()),
            VXLAN_LINK,
            Some(Role::Overlay),
        ),
        (DetectLocal::None, "veth7", None),
        (DetectLocal::None, "sw0123456789a", Some(Role::Pod)),
    ] {
        assert_eq!(
            role_by_name(link, &detect_local),
            expected,
            "{detect_local:?} {link}"
        );
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_default_route_says_which_address_is_the_nodes() {
    let view = node();
    assert_eq!(view.v4.node_addr, Some(ip("172.16.0.1")));
    assert_eq!(view.v4.overlay_addr, Some(ip("10.244.1.0")));
    // Without a default route of the family the first uplink's; a link-local address is none.
    assert_eq!(view.v6.node_addr, Some(ip("fd00::1")));
    assert_eq!(view.v6.overlay_addr, None);
    assert_eq!(view.overlay_ifindex, Some(4));
    assert_eq!(view.addresses.len(), 5);
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
        detect_local: DetectLocal::ClusterCidr(vec![
            "10.244.0.0/16".parse().expect("a network"),
            "fd00:10::/48".parse().expect("a network"),
        ]),
        ..EbpfConfig::new("n1", "/sys/fs/cgroup")
    };
    let config = config(&node(), &settings, 7, (32_768, 60_999));
    assert_eq!(config.flags, CONFIG_LOCALHOST_NODE_PORTS);
    for (addr, expected) in [
        ("10.244.9.9", true),
        ("10.245.0.1", false),
        ("fd00:10::9", true),
        ("fd00:11::9", false),
    ] {
        let addr = Addr::from(ip(addr));
        assert_eq!(config.family(&addr).is_pod(&addr), expected, "{addr:?}");
        assert!(config.detects(&addr));
    }
    assert_eq!(config.v4.node_addr.words[3].to_ne_bytes(), [172, 16, 0, 1]);
    assert_eq!(config.v4.node_addr.ip(), ip("172.16.0.1"));
    assert_eq!(config.v6.node_addr.ip(), ip("fd00::1"));
    assert_eq!(config.v6.overlay_addr, Addr::ANY_V6);

    let links = EbpfConfig {
        detect_local: DetectLocal::InterfaceNamePrefix("veth".to_owned()),
        node_port_addresses: Some(Vec::new()),
        ..settings
    };
    let config = super::config(&node(), &links, 7, (32_768, 60_999));
    assert_eq!(config.flags, CONFIG_PODS_BY_LINK);
    assert_eq!(config.v4.cidr_count, 0);
}

#[test]
fn node_ports_are_served_where_the_setting_says() {
    let settings = EbpfConfig {
        node_port_addresses: Some(vec!["172.16.0.0/12".parse().expect("a network")]),
        ..EbpfConfig::new("n1", "/sys/fs/cgroup")
    };
    let both = NODE_ADDR_LOCAL | NODE_ADDR_NODE_PORTS;
    for (ip, bits) in addresses(&node(), &settings) {
        let expected = if ip == Addr::from(self::ip("172.16.0.1")) {
            both
        } else {
            NODE_ADDR_LOCAL
        };
        assert_eq!(bits, expected, "{}", ip.ip());
    }
    let everywhere = EbpfConfig::new("n1", "/sys/fs/cgroup");
    assert!(
        addresses(&node(), &everywhere)
            .values()
            .all(|bits| *bits == both)
    );
}
