use ipnetwork::IpNetwork;

use super::super::tests::{address, link};
use super::super::{NodeView, view};
use super::*;
use seaway_kernel::{Address, Scope};

const CALI: u32 = 8;

fn cluster() -> DetectLocal {
    DetectLocal::ClusterCidr(vec![network("10.244.0.0/16")])
}

fn network(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn route(to: &str, link: u32) -> Route {
    Route {
        link: Some(link),
        ..Route::new(network(to), 3)
    }
}

fn via(to: &str, link: u32) -> Route {
    Route {
        gateway: Some("10.0.0.9".parse().expect("an address")),
        ..route(to, link)
    }
}

/// `eth0` with the node's address and default route, `eth1` with an address, and three links without either.
fn node(routes: &[Route], detect_local: &DetectLocal) -> NodeView {
    let veth = |index, name| Link {
        kind: LinkKind::Veth,
        ..link(index, name)
    };
    let links = [
        link(1, "lo"),
        link(2, "eth0"),
        link(3, "eth1"),
        link(4, "wg0"),
        veth(CALI, "cali12ab34cd567"),
        veth(9, "sw0123456789a"),
    ];
    let addresses: [Address; 2] = [
        address(2, "192.168.100.1/24", Scope::Global),
        address(3, "192.168.101.1/24", Scope::Global),
    ];
    let routes: Vec<Route> = routes
        .iter()
        .cloned()
        .chain([via("0.0.0.0/0", 2)])
        .collect();
    view(&links, &addresses, &routes, detect_local)
}

#[test]
fn a_link_that_pods_lie_behind_is_theirs() {
    use Role::{Pod, Uplink};
    let by_name = DetectLocal::InterfaceNamePrefix("veth".to_owned());
    let of_kernel = |to, link| Route {
        protocol: BY_KERNEL,
        ..route(to, link)
    };
    for (what, route, detect_local, link, expected) in [
        (
            "a pod",
            route("10.244.1.5/32", CALI),
            cluster(),
            CALI,
            Some(Pod),
        ),
        (
            "a pod behind what is no veth",
            route("10.244.1.5/32", 4),
            cluster(),
            4,
            Some(Pod),
        ),
        (
            "out of range",
            route("10.250.1.5/32", CALI),
            cluster(),
            CALI,
            None,
        ),
        (
            "of a wider range",
            route("10.0.0.0/8", CALI),
            cluster(),
            CALI,
            None,
        ),
        (
            "an address of the node",
            of_kernel("10.244.1.5/32", CALI),
            cluster(),
            CALI,
            None,
        ),
        (
            "pods of a node",
            route("10.244.2.0/24", 4),
            cluster(),
            4,
            Some(Uplink),
        ),
        (
            "pods of a node by a gateway",
            via("10.244.2.0/24", 4),
            cluster(),
            4,
            Some(Uplink),
        ),
        (
            "a borrowed address",
            via("10.244.2.7/32", 4),
            cluster(),
            4,
            Some(Uplink),
        ),
        // A plugin that gives the host's end an address, and a node that hands single addresses to a neighbour.
        (
            "a pod, and an address",
            route("10.244.1.5/32", 3),
            cluster(),
            3,
            Some(Pod),
        ),
        (
            "a pod range at the uplink",
            route("10.244.1.5/32", 2),
            cluster(),
            2,
            Some(Uplink),
        ),
        (
            "other pods, and an address",
            via("10.244.2.0/24", 3),
            cluster(),
            3,
            Some(Uplink),
        ),
        // Nobody has said which addresses are those of pods.
        (
            "behind a veth",
            route("10.9.9.9/32", CALI),
            DetectLocal::None,
            CALI,
            Some(Pod),
        ),
        (
            "of IPv6",
            route("fd00::9/128", CALI),
            cluster(),
            CALI,
            Some(Pod),
        ),
        (
            "a tunnel's peer",
            route("10.9.9.9/32", 4),
            DetectLocal::None,
            4,
            None,
        ),
        (
            "a neighbour",
            route("10.9.9.9/32", 3),
            DetectLocal::None,
            3,
            Some(Uplink),
        ),
        (
            "a network",
            route("10.9.9.0/24", CALI),
            DetectLocal::None,
            CALI,
            None,
        ),
        // Its packets are to be seen, but by its name it is no pod.
        (
            "of another name",
            route("10.9.9.9/32", CALI),
            by_name,
            CALI,
            Some(Uplink),
        ),
    ] {
        let seen = node(std::slice::from_ref(&route), &detect_local);
        let role = seen.links.get(&link).map(|link| link.role);
        assert_eq!(role, expected, "{what}: {route}");
    }
}

#[test]
fn a_pod_among_other_routes_makes_the_link_a_pods() {
    let routes = [via("10.244.2.0/24", CALI), route("10.244.1.5/32", CALI)];
    let seen = node(&routes, &cluster());
    assert_eq!(seen.links.get(&CALI).map(|link| link.role), Some(Role::Pod));
    assert_eq!(seen.v4.node_addr, "192.168.100.1".parse().ok());
}

#[test]
fn a_route_matters_only_where_it_can_change_a_role() {
    let seen = node(&[route("10.244.1.5/32", CALI)], &cluster());
    for (what, route, expected) in [
        ("the way out", via("0.0.0.0/0", 2), true),
        ("a new pod link", route("10.244.1.6/32", 10), true),
        ("a pod that leaves", route("10.244.1.5/32", CALI), true),
        ("a pod of our own plugin", route("10.244.1.7/32", 9), false),
        ("no pod", route("10.250.1.5/32", 10), false),
        (
            "one node more over the uplink",
            via("10.244.3.0/24", 2),
            false,
        ),
        (
            "the first node over a new tunnel",
            via("10.244.3.0/24", 11),
            true,
        ),
        (
            "nowhere",
            Route {
                link: None,
                ..route("10.244.3.0/24", 0)
            },
            false,
        ),
    ] {
        assert_eq!(
            matter(&route, &seen, &cluster()),
            expected,
            "{what}: {route}"
        );
    }
}
