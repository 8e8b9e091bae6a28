//! What a Service may ask for besides endpoints, and what is not an ordinary packet: under `BPF_PROG_TEST_RUN`.

use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use seaway_model::{Desired, Frontend, FrontendAddr, FrontendKind, PortRule};

use crate::packets::{ACK, Bench, OK, OUTSIDE, OVERLAY, PASS, REDIRECT, SHOT, SYN, Shape, shape};
use crate::world::{CLUSTER_IP, LOCAL_POD, NODE_IP, REMOTE_POD, service, sync};

const BALANCER: &str = "203.0.113.1";

fn change(mut desired: Desired, change: impl Fn(&mut PortRule)) -> Desired {
    for rules in desired.services.values_mut() {
        rules.ports.iter_mut().for_each(&change);
    }
    desired
}

#[tokio::test]
async fn a_client_stays_with_its_backend_at_all_frontends() {
    let both = &[(LOCAL_POD, true), (REMOTE_POD, false)];
    let sticky = |desired| {
        change(desired, |rule| {
            rule.affinity = Some(Duration::from_secs(60));
        })
    };
    let mut bench = Bench::new(&sticky(service(both))).await;
    let mut first = None;
    for port in 1000..1032 {
        // A node port and the cluster IP, from one client.
        let to = if port % 2 == 0 {
            (NODE_IP, 30080)
        } else {
            (CLUSTER_IP, 80)
        };
        let (code, seen) = bench.run("from_uplink", shape((OUTSIDE, port), to, Some(SYN)));
        assert_eq!(code, REDIRECT);
        assert_eq!(*first.get_or_insert(seen.dst), seen.dst, "{port}");
    }
    assert_eq!(bench.counter("affinity_kept"), 31);
    // Its endpoint goes: the client is released, and stays with the next one when the first is back.
    let gone = first.unwrap().to_string();
    let rest: Vec<_> = both.iter().copied().filter(|(ip, _)| *ip != gone).collect();
    for (step, backends) in [rest.as_slice(), both].into_iter().enumerate() {
        sync(&mut bench.plane, &sticky(service(backends))).await;
        for port in 0..8 {
            let from = (OUTSIDE, 2000 + 100 * step as u16 + port);
            let (_, seen) = bench.run("from_uplink", shape(from, (NODE_IP, 30080), Some(SYN)));
            assert_eq!(seen.dst.to_string(), rest[0].0);
        }
    }
    // Without affinity both answer again.
    sync(&mut bench.plane, &service(both)).await;
    let mut seen = std::collections::BTreeSet::new();
    for port in 3000..3064 {
        let packet = shape((OUTSIDE, port), (NODE_IP, 30080), Some(SYN));
        seen.insert(bench.run("from_uplink", packet).1.dst);
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_client_is_forgotten_after_its_timeout() {
    let both = &[(LOCAL_POD, true), (REMOTE_POD, false)];
    let short = change(service(both), |rule| {
        rule.affinity = Some(Duration::from_secs(1));
    });
    let mut bench = Bench::new(&short).await;
    let mut seen = std::collections::BTreeSet::new();
    for port in 1000..1012 {
        let packet = shape((OUTSIDE, port), (NODE_IP, 30080), Some(SYN));
        seen.insert(bench.run("from_uplink", packet).1.dst);
        tokio::time::sleep(Duration::from_millis(1050)).await;
    }
    assert_eq!(
        seen.len(),
        2,
        "twelve times the same by chance: once in 2,000 runs"
    );
}

#[tokio::test]
async fn source_ranges_guard_the_load_balancer_only() {
    let guarded = |ranges: &[&str]| {
        let ranges: Vec<_> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        change(service(&[(LOCAL_POD, true)]), |rule| {
            rule.source_ranges = ranges.clone();
            rule.frontends.push(Frontend {
                addr: FrontendAddr::Ip(BALANCER.parse().unwrap()),
                port: 80,
                protocol: rule.protocol,
                kind: FrontendKind::LoadBalancer,
            });
        })
    };
    let mut bench = Bench::new(&guarded(&["192.168.77.192/28", "10.244.1.0/24"])).await;
    for (ranges, allowed) in [
        (&["192.168.77.192/28", "10.244.1.0/24"][..], true),
        (&["192.168.77.0/29", "10.0.0.0/8"], false),
        (&["192.168.77.200/32"], true),
        (&["192.168.77.201/32"], false),
        (&[], true),
    ] {
        sync(&mut bench.plane, &guarded(ranges)).await;
        for (port, tcp) in [(1, Some(SYN)), (2, None)] {
            // Each time another flow.
            let port = port + 10 * ranges.len() as u16 + u16::from(allowed) * 100;
            let at = |to| shape((OUTSIDE, port), to, tcp);
            let expected = if allowed { REDIRECT } else { SHOT };
            let (code, _) = bench.run("from_uplink", at((BALANCER, 80)));
            assert_eq!(code, expected, "{ranges:?} {tcp:?}");
            assert_eq!(bench.run("from_uplink", at((NODE_IP, 30080))).0, REDIRECT);
        }
    }
}

/// An ICMP error of a router or host about a packet.
fn error_about(from: &str, to: &str, packet: Shape, kind: u8, code: u8) -> Vec<u8> {
    let quoted = packet.bytes()[14..42].to_vec();
    let icmp = etherparse::Icmpv4Type::Unknown {
        type_u8: kind,
        code_u8: code,
        bytes5to8: [0, 0, 5, 0xdc],
    };
    let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(ip(from), ip(to), 64)
        .icmpv4(icmp)
        .write(&mut bytes, &quoted)
        .unwrap();
    bytes
}

/// Source and destination of an ICMP message and of the packet that it quotes; checks all checksums.
fn read_error(bytes: &[u8]) -> [(String, String); 2] {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
        (&sliced.net, &sliced.transport)
    else {
        panic!("not ICMP");
    };
    let header = ip.header().to_header();
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
    let words = icmp.slice().chunks(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "ICMP checksum");
    let quoted = etherparse::Ipv4Header::from_slice(icmp.payload()).unwrap();
    let (inner, ports) = quoted;
    assert_eq!(inner.calc_header_checksum(), inner.header_checksum);
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let text = |ip: [u8; 4]| Ipv4Addr::from(ip).to_string();
    [
        (text(header.source), text(header.destination)),
        (
            format!("{}:{}", text(inner.source), port(0)),
            format!("{}:{}", text(inner.destination), port(2)),
        ),
    ]
}

#[tokio::test]
async fn errors_are_translated_in_both_directions() {
    let mut bench = Bench::new(&service(&[(REMOTE_POD, false)])).await;
    for tcp in [Some(SYN), None] {
        let sent = shape((OUTSIDE, 4000), (NODE_IP, 30080), tcp);
        let (_, translated) = bench.run("from_uplink", sent);
        let masqueraded = format!("{OVERLAY}:{}", translated.sport);
        // The backend, then a router on the way to it.
        for (who, shown) in [(REMOTE_POD, NODE_IP), ("10.9.9.9", "10.9.9.9")] {
            let link = bench.pod;
            let error = error_about(who, OVERLAY, translated, 3, 4);
            let (code, seen) = bench.run_bytes("from_overlay", link, &error);
            assert_eq!(code, REDIRECT);
            let [outer, inner] = read_error(&seen);
            assert_eq!(outer, (shown.to_owned(), OUTSIDE.to_owned()));
            assert_eq!(
                inner,
                (format!("{OUTSIDE}:4000"), format!("{NODE_IP}:30080"))
            );
        }
        // The answer finds no way to the client: the client itself, then a router.
        let flags = tcp.map(|_| SYN | ACK);
        let answer = shape((NODE_IP, 30080), (OUTSIDE, 4000), flags);
        for (who, shown) in [(OUTSIDE, OVERLAY), ("10.9.9.9", "10.9.9.9")] {
            let link = bench.uplink;
            let error = error_about(who, NODE_IP, answer, 11, 0);
            let (code, seen) = bench.run_bytes("from_uplink", link, &error);
            assert_eq!(code, REDIRECT);
            let [outer, inner] = read_error(&seen);
            assert_eq!(outer, (shown.to_owned(), REMOTE_POD.to_owned()));
            assert_eq!(inner, (format!("{REMOTE_POD}:8080"), masqueraded.clone()));
        }
        // About somebody else's packet, and what is no error.
        let other = shape((NODE_IP, 30080), (OUTSIDE, 4001), flags);
        let link = bench.uplink;
        for error in [
            error_about(OUTSIDE, NODE_IP, other, 3, 3),
            error_about(OUTSIDE, NODE_IP, answer, 8, 0),
        ] {
            let (code, seen) = bench.run_bytes("from_uplink", link, &error);
            assert_eq!((code, seen), (PASS, error));
        }
    }
    assert_eq!(bench.counter("icmp_error"), 8);
}

#[tokio::test]
async fn fragments_follow_the_first_one() {
    let mut bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    let link = bench.uplink;
    let fragment = |id: u8, place: [u8; 2]| {
        let mut bytes = shape((OUTSIDE, 5000), (NODE_IP, 30080), None).bytes();
        bytes[19] = id;
        bytes[20..22].copy_from_slice(&place);
        // The header's checksum, anew.
        bytes[24..26].copy_from_slice(&[0, 0]);
        let header = etherparse::Ipv4Header::from_slice(&bytes[14..]).unwrap().0;
        bytes[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        bytes
    };
    let (first, last) = (fragment(7, [0x20, 0]), fragment(7, [0, 1]));
    // Too early, and of another packet.
    assert_eq!(
        bench.run_bytes("from_uplink", link, &last),
        (PASS, last.clone())
    );
    let (code, out) = bench.run_bytes("from_uplink", link, &first);
    assert_eq!(code, REDIRECT);
    assert_eq!(out[20..22], [0x20, 0], "still the first fragment");
    assert_ne!(out[34..38], first[34..38], "its ports are translated");
    let other = fragment(8, [0, 1]);
    assert_eq!(bench.run_bytes("from_uplink", link, &other), (PASS, other));
    let (code, out) = bench.run_bytes("from_uplink", link, &last);
    assert_eq!(code, REDIRECT);
    assert_eq!(out[34..], last[34..], "there are no ports in it");
    let header = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap().0;
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
    assert_eq!(Ipv4Addr::from(header.destination).to_string(), LOCAL_POD);
    assert_eq!(Ipv4Addr::from(header.source).to_string(), OVERLAY);
    assert_eq!(bench.counter("fragment_followed"), 1);
    assert_eq!(bench.counter("fragment"), 2);
}

#[tokio::test]
async fn a_packet_too_large_for_the_backend_is_answered() {
    // The pod's link and the overlay have an MTU of 1450.
    for (backend, local) in [(LOCAL_POD, true), (REMOTE_POD, false)] {
        let mut bench = Bench::new(&service(&[(backend, local)])).await;
        is_told_what_fits(&mut bench, backend);
    }
}

fn is_told_what_fits(bench: &mut Bench, backend: &str) {
    let link = bench.uplink;
    let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let mut large = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(ip(OUTSIDE), ip(NODE_IP), 64)
        .udp(4000, 30080)
        .write(&mut large, &[0; 1460])
        .unwrap();
    let (code, seen) = bench.run_bytes("from_uplink", link, &large);
    assert_eq!((code, seen.len()), (REDIRECT, 70));
    assert_eq!(seen[34..36], [3, 4]);
    assert_eq!(seen[40..42], 1450_u16.to_be_bytes());
    let [outer, inner] = read_error(&seen);
    assert_eq!(outer, (NODE_IP.to_owned(), OUTSIDE.to_owned()));
    assert_eq!(
        inner,
        (format!("{OUTSIDE}:4000"), format!("{NODE_IP}:30080"))
    );
    assert_eq!(bench.counter("too_large"), 1);
    // One that may be cut goes to the stack, for the backend but with the client's address.
    large[20] = 0;
    large[24..26].fill(0);
    let header = etherparse::Ipv4Header::from_slice(&large[14..]).unwrap().0;
    large[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    let (code, seen) = bench.run_bytes("from_uplink", link, &large);
    assert_eq!((code, seen.len()), (OK, large.len()));
    let seen = Shape::read(&seen);
    assert_eq!(seen.dst.to_string(), backend);
    assert_eq!(
        (seen.src.to_string(), seen.sport, seen.dport, seen.ttl),
        (OUTSIDE.to_owned(), 4000, 8080, 64)
    );
    assert_eq!(bench.counter("cut"), 1);
    assert_eq!(bench.counter("dropped_too_large"), 0);
}
