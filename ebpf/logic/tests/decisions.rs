//! The tables of decisions.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use seaway_ebpf_abi::config::{CONFIG_MASQUERADE_ALL, CONFIG_PODS_BY_LINK, Family};
use seaway_ebpf_abi::flow::{
    STATE_ESTABLISHED, STATE_FIN_BACKEND, STATE_FIN_CLIENT, STATE_OPENED, STATE_REPLIED,
    STATE_RESET,
};
use seaway_ebpf_abi::frontend::{
    BACKEND_POD, FRONTEND_FAR_LOCAL, FRONTEND_REJECT, KIND_CLUSTER_IP, KIND_NODE_PORT,
};
use seaway_ebpf_abi::{Addr, AffinityValue, BackendValue, Cidr, Config, FrontendValue, TCP, UDP};
use seaway_ebpf_logic::decide::{Choice, Client, choose, is_pod, is_remembered, masquerade, slot};
use seaway_ebpf_logic::flow::{
    backend_packet, client_packet, is_bound, is_closed, may_open, timeout,
};
use seaway_ebpf_logic::nat::source_port;
use seaway_ebpf_logic::packet::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

fn ip(a: u8, b: u8, c: u8, d: u8) -> Addr {
    Addr::from(std::net::IpAddr::from([a, b, c, d]))
}

#[test]
fn the_set_depends_on_where_the_client_is() {
    let frontend = FrontendValue {
        near_set: 1,
        near_count: 3,
        far_set: 2,
        far_count: 0,
        ..FrontendValue::default()
    };
    assert_eq!(
        choose(&frontend, Client::Near),
        Choice::Set { set: 1, count: 3 }
    );
    assert_eq!(choose(&frontend, Client::Far), Choice::Drop);
    let none = FrontendValue {
        flags: FRONTEND_REJECT,
        ..FrontendValue::default()
    };
    assert_eq!(choose(&none, Client::Near), Choice::Reject);
    assert_eq!(choose(&none, Client::Far), Choice::Reject);
}

#[test]
fn who_keeps_the_own_address() {
    let pod = ip(10, 244, 1, 5);
    let outside = ip(192, 168, 77, 200);
    let mut v4 = Family {
        overlay_addr: ip(10, 244, 1, 0),
        node_addr: ip(192, 168, 77, 1),
        cidr_count: 1,
        ..Family::default()
    };
    v4.cidrs[0] = Cidr::new([10, 244, 0, 0].into(), 16);
    let config = Config {
        v4,
        ..Config::default()
    };
    let all = Config {
        flags: CONFIG_MASQUERADE_ALL,
        ..config
    };
    let unknown = Config {
        v4: Family {
            cidr_count: 0,
            ..config.v4
        },
        ..config
    };
    let frontend = |kind, flags| FrontendValue {
        kind,
        flags,
        ..FrontendValue::default()
    };
    let cluster_ip = frontend(KIND_CLUSTER_IP, 0);
    let node_port = frontend(KIND_NODE_PORT, 0);
    let local_only = frontend(KIND_NODE_PORT, FRONTEND_FAR_LOCAL);
    let other_pod = BackendValue {
        addr: ip(10, 244, 2, 5),
        port: 80,
        flags: BACKEND_POD,
    };
    let same_pod = BackendValue {
        addr: pod,
        ..other_pod
    };
    let host = BackendValue {
        addr: ip(192, 168, 77, 3),
        port: 80,
        flags: 0,
    };
    let (overlay, node) = (Some(v4.overlay_addr), Some(v4.node_addr));
    for (name, config, frontend, client, backend, is_node, expected) in [
        (
            "pod to cluster IP",
            &config,
            &cluster_ip,
            pod,
            &other_pod,
            false,
            None,
        ),
        (
            "outside to cluster IP",
            &config,
            &cluster_ip,
            outside,
            &other_pod,
            false,
            overlay,
        ),
        (
            "pod, masquerade all",
            &all,
            &cluster_ip,
            pod,
            &other_pod,
            false,
            overlay,
        ),
        (
            "nobody knows who is outside",
            &unknown,
            &cluster_ip,
            outside,
            &other_pod,
            false,
            None,
        ),
        (
            "hairpin",
            &config,
            &cluster_ip,
            pod,
            &same_pod,
            false,
            overlay,
        ),
        (
            "outside to node port",
            &config,
            &node_port,
            outside,
            &other_pod,
            false,
            overlay,
        ),
        (
            "to a host",
            &config,
            &node_port,
            outside,
            &host,
            false,
            node,
        ),
        (
            "to this host",
            &config,
            &node_port,
            outside,
            &host,
            true,
            None,
        ),
        (
            "policy Local",
            &config,
            &local_only,
            outside,
            &other_pod,
            false,
            None,
        ),
        (
            "hairpin, policy Local",
            &config,
            &local_only,
            pod,
            &same_pod,
            false,
            overlay,
        ),
    ] {
        let pod = is_pod(config, &client, false);
        let near = if pod { Client::Near } else { Client::Far };
        let found = masquerade(config, frontend, (&client, pod, near), backend, is_node);
        assert_eq!(found, expected, "{name}");
    }
    // The node itself, at an address whose policy is Local.
    let who = (&v4.node_addr, false, Client::Near);
    assert_eq!(
        masquerade(&config, &local_only, who, &other_pod, false),
        overlay
    );
    // An IPv6 address gets nothing of IPv4's.
    let v6 = BackendValue {
        addr: Addr { words: [1; 4] },
        ..other_pod
    };
    let who = (&Addr { words: [2; 4] }, false, Client::Far);
    assert_eq!(masquerade(&config, &node_port, who, &v6, false), None);
}

#[test]
fn pods_are_known_by_their_networks_or_their_links() {
    let mut config = Config::default();
    config.v6.cidr_count = 1;
    config.v6.cidrs[0] = Cidr::new("fd00:10::7".parse().unwrap(), 32);
    let v6 = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
    for (addr, expected) in [
        (v6("fd00:10:1::1"), true),
        (v6("fd00:11::1"), false),
        (ip(10, 244, 1, 1), false),
    ] {
        for over_pod_link in [false, true] {
            assert_eq!(is_pod(&config, &addr, over_pod_link), expected, "{addr:?}");
        }
        assert_eq!(config.detects(&addr), !addr.is_v4());
    }
    config.flags = CONFIG_PODS_BY_LINK;
    for over_pod_link in [false, true] {
        let pod = is_pod(&config, &v6("fd00:10:1::1"), over_pod_link);
        assert_eq!(pod, over_pod_link);
    }
    assert!(config.detects(&ip(10, 244, 1, 1)));
}

#[test]
fn a_client_is_remembered_for_as_long_as_the_timeout() {
    let frontend = FrontendValue {
        affinity_timeout: 10,
        ..FrontendValue::default()
    };
    let known = AffinityValue {
        last_used: 5_000_000_000,
        ..AffinityValue::default()
    };
    assert!(is_remembered(&frontend, &known, 14_999_999_999));
    assert!(!is_remembered(&frontend, &known, 15_000_000_000));
}

#[test]
fn addresses_keep_their_family() {
    for (text, v4, loopback, unspecified) in [
        ("127.0.0.1", true, true, false),
        ("127.9.9.9", true, true, false),
        ("0.0.0.0", true, false, true),
        ("10.0.0.1", true, false, false),
        ("::1", false, true, false),
        ("::", false, false, true),
        ("fd00::1", false, false, false),
        ("::2", false, false, false),
    ] {
        let ip: std::net::IpAddr = text.parse().unwrap();
        let addr = Addr::from(ip);
        assert_eq!(addr.ip(), ip);
        assert_eq!(
            (addr.is_v4(), addr.is_loopback(), addr.is_unspecified()),
            (v4, loopback, unspecified),
            "{text}"
        );
        assert!(addr.any().is_unspecified() && addr.any().is_v4() == v4);
    }
}

#[test]
fn a_connection_lives_and_dies() {
    let mut state = client_packet(0, TCP_SYN);
    assert_eq!(state, STATE_OPENED);
    assert!(!is_bound(TCP, state));
    state = backend_packet(state, TCP_SYN | TCP_ACK);
    assert_eq!(state, STATE_OPENED | STATE_REPLIED);
    assert!(is_bound(TCP, state) && !is_bound(UDP, state));
    state = client_packet(state, TCP_ACK);
    assert_ne!(state & STATE_ESTABLISHED, 0);
    assert_eq!(timeout(TCP, state), 86_400_000_000_000);
    state = client_packet(state, TCP_FIN | TCP_ACK);
    assert_ne!(state & STATE_FIN_CLIENT, 0);
    assert!(!is_closed(state));
    state = backend_packet(state, TCP_FIN | TCP_ACK);
    assert_ne!(state & STATE_FIN_BACKEND, 0);
    assert!(is_closed(state));
    assert!(timeout(TCP, state) <= 60_000_000_000);
    assert!(is_closed(backend_packet(STATE_OPENED, TCP_RST)));
    assert_ne!(client_packet(0, TCP_RST) & STATE_RESET, 0);
}

#[test]
fn only_a_syn_opens_a_connection() {
    for flags in 0..=0x1f_u8 {
        let expected = flags & TCP_SYN != 0 && flags & (TCP_ACK | TCP_RST | TCP_FIN) == 0;
        assert_eq!(may_open(TCP, flags), expected, "{flags:#x}");
        assert!(may_open(UDP, flags));
    }
}

proptest! {
    #[test]
    fn a_slot_is_within_its_set(set in any::<u32>(), count in 1_u32.., random in any::<u32>()) {
        let key = slot(set, count, random);
        prop_assert_eq!(key.set, set);
        prop_assert!(key.slot < count);
    }

    #[test]
    fn a_port_is_within_its_range(
        attempt in 0_u32..24,
        original in any::<u16>(),
        masquerade in any::<bool>(),
        min in 1_u16..,
        size in any::<u16>(),
        random in any::<u32>(),
    ) {
        let max = min.saturating_add(size);
        let port = source_port(attempt, original, masquerade, (min, max), random);
        if attempt == 0 && !masquerade {
            prop_assert_eq!(port, original);
        } else {
            prop_assert!((min..=max).contains(&u16::from_be(port)));
        }
    }

    #[test]
    fn a_state_never_forgets(packets in proptest::collection::vec((any::<bool>(), any::<u8>()), 0..20)) {
        let mut state = 0;
        for (client, flags) in packets {
            let next = if client { client_packet(state, flags) } else { backend_packet(state, flags) };
            prop_assert_eq!(next & state, state);
            state = next;
        }
    }
}

#[test]
fn slots_are_equally_likely() {
    let mut hits = [0_u32; 7];
    for step in 0..70_000_u32 {
        hits[slot(1, 7, step.wrapping_mul(2_654_435_761)).slot as usize] += 1;
    }
    assert!(hits.iter().all(|h| (9_000..11_000).contains(h)), "{hits:?}");
}

#[test]
fn an_empty_range_leaves_the_port_alone() {
    assert_eq!(source_port(3, 1234, true, (10, 9), 5), 1234);
}
