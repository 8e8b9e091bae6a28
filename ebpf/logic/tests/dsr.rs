//! Flows whose backend answers the client itself.

use std::net::IpAddr;

use proptest::prelude::*;
use seaway_ebpf_abi::dsr::DSR_VNI;
use seaway_ebpf_abi::flow::{
    STATE_ESTABLISHED, STATE_FIN_CLIENT, STATE_OPENED, STATE_REPLIED, STATE_RESET,
};
use seaway_ebpf_abi::{BackendValue, FlowValue, Hop, TCP, TunnelValue, UDP, VtepValue};
use seaway_ebpf_logic::dsr::{begins_anew, client_packet, is_bound, is_vni, outer4, timeout, vni};
use seaway_ebpf_logic::packet::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

fn backend(ip: IpAddr, port: u16) -> BackendValue {
    BackendValue {
        addr: ip.into(),
        port: port.to_be(),
        flags: 0,
    }
}

/// Nodes of other versions and architectures have to agree on these.
#[test]
fn the_vni_of_a_backend_is_the_same_for_all_times() {
    let of = |ip: &str, port| vni(&backend(ip.parse().unwrap(), port));
    let seen = [
        of("10.244.2.5", 8080),
        of("10.244.2.5", 8081),
        of("10.244.2.6", 8080),
        of("fd00:10:244:2::5", 8080),
    ];
    assert_eq!(seen, [9_888_656, 13_606_935, 13_060_382, 16_098_543]);
}

#[test]
fn the_life_of_a_connection_shows_in_what_the_client_sends() {
    let steps = [
        (TCP_SYN, STATE_OPENED, false),
        (TCP_SYN, STATE_OPENED, false),
        (
            TCP_ACK,
            STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED,
            true,
        ),
        (
            TCP_FIN | TCP_ACK,
            STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED | STATE_FIN_CLIENT,
            true,
        ),
    ];
    let mut state = 0;
    for (flags, expected, bound) in steps {
        state = client_packet(TCP, state, flags);
        assert_eq!(state, expected, "{flags}");
        assert_eq!(is_bound(TCP, state, TCP_ACK), bound);
        // Whatever opens a connection may need another backend.
        assert!(!is_bound(TCP, state, TCP_SYN));
        let closed = flags & TCP_FIN != 0;
        assert_eq!(begins_anew(TCP, state, TCP_SYN), closed);
        assert!(!begins_anew(TCP, state, TCP_ACK));
    }
    let reset = client_packet(TCP, STATE_OPENED, TCP_RST | TCP_ACK);
    assert_eq!(reset, STATE_OPENED | STATE_RESET);
}

#[test]
fn a_flow_that_only_the_client_has_closed_is_kept_for_two_minutes() {
    const SECOND: u64 = 1_000_000_000;
    let open = STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED;
    for (protocol, state, expected) in [
        (TCP, open, 86_400),
        (TCP, open | STATE_FIN_CLIENT, 120),
        (TCP, open | STATE_FIN_CLIENT | STATE_RESET, 10),
        (TCP, STATE_OPENED, 120),
        (UDP, client_packet(UDP, 0, 0), 120),
    ] {
        let flow = FlowValue {
            state,
            ..FlowValue::default()
        };
        assert_eq!(timeout(protocol, &flow), expected * SECOND, "{state}");
    }
}

proptest! {
    #[test]
    fn no_backend_has_the_vni_of_ordinary_packets(ip: IpAddr, port: u16) {
        let vni = vni(&backend(ip, port));
        prop_assert!(is_vni(vni) && (DSR_VNI..1 << 24).contains(&vni));
        // Those that an overlay takes for itself.
        prop_assert!(!is_vni(1) && !is_vni(4096));
    }

    #[test]
    fn states_only_gain(protocol in prop_oneof![Just(TCP), Just(UDP)], state in 0_u8..64, flags: u8) {
        let next = client_packet(protocol, state, flags);
        prop_assert_eq!(next & state, state);
        // What would write the entry for each packet is settled after one.
        prop_assert_eq!(client_packet(protocol, next, flags), next);
    }
}

/// As another reader of packets sees them.
#[test]
fn the_headers_of_the_tunnel_are_right() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let addr = |ip: &str| ip.parse::<IpAddr>().unwrap().into();
    let chosen = backend("10.244.2.5".parse().unwrap(), 8080);
    let flow = FlowValue {
        src: addr("192.0.2.9"),
        sport: 40000_u16.to_be(),
        dst: chosen.addr,
        dport: chosen.port,
        ..FlowValue::default()
    };
    let there = TunnelValue {
        remote: addr("192.168.77.2"),
        port: 8472_u16.to_be(),
        flags: 0,
    };
    let way = VtepValue {
        local: addr("192.168.77.1"),
        hop: Hop {
            to: [1, 2, 3].map(u16::to_be),
            from: [4, 5, 6].map(u16::to_be),
            ..Hop::default()
        },
    };
    let frame = [0xab; 60];
    let headers = outer4(&flow, &there, &way, 60);
    let mut bytes: Vec<u8> = headers.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend_from_slice(&frame);
    let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
    assert_eq!(bytes[..12], [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6]);
    let Some(NetSlice::Ipv4(ip)) = packet.net else {
        panic!("not IPv4");
    };
    let ip = ip.header().to_header();
    assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
    assert_eq!(
        (ip.source, ip.destination),
        ([192, 168, 77, 1], [192, 168, 77, 2])
    );
    assert!(ip.dont_fragment && ip.time_to_live == 64);
    let Some(TransportSlice::Udp(udp)) = packet.transport else {
        panic!("not UDP");
    };
    assert_eq!((udp.destination_port(), udp.checksum()), (8472, 0));
    assert!(udp.source_port() >= 0xc000);
    let payload = udp.payload();
    assert_eq!(payload.len(), 8 + 60);
    assert_eq!(payload[..4], [8, 0, 0, 0]);
    assert_eq!(payload[4..8], (vni(&chosen) << 8).to_be_bytes());
    assert_eq!(payload[8..], frame);
    // A flow keeps its port, another client has another one.
    let again = outer4(&flow, &there, &way, 1400);
    assert_eq!(again[17], headers[17]);
    let other = FlowValue {
        sport: 40001_u16.to_be(),
        ..flow
    };
    assert_ne!(outer4(&other, &there, &way, 60)[17], headers[17]);
}
