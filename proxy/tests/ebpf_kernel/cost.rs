//! What a packet costs: nanoseconds in the programs by `BPF_PROG_TEST_RUN`. No figure of a busy machine is a failure;
//! that a packet repeated hundreds of times is decided another way is one. To see the figures:
//! `cargo test -p seaway-proxy --test ebpf_kernel -- --nocapture cost`.
//!
//! A run changes its packet. So that one call can run a program many times, the backend of one Service is the address of
//! the next one, and that of the last the first: each packet is translated into the next one's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use seaway_model::{Desired, FrontendAddr, ObjectKey};

use crate::packets::{ACK, Bench, PASS, REDIRECT, SYN, Shape, shape};
use crate::world::{LOCAL_POD, POD_LINK, service};

/// Hops of a packet at the start: one is gone with each round.
const HOPS: u8 = 255;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn address(place: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_0100 + place)
}

/// Services in a ring.
fn ring(size: u32) -> Desired {
    let mut desired = Desired::default();
    for place in 0..size {
        let mut one = service(&[(LOCAL_POD, false)]);
        let Some((_, mut rules)) = one.services.pop_first() else {
            panic!("no Service");
        };
        for port in &mut rules.ports {
            port.frontends.truncate(1);
            port.frontends[0].addr = FrontendAddr::Ip(address(place).into());
            let next = IpAddr::from(address((place + 1) % size));
            port.cluster[0].addr = SocketAddr::new(next, 80);
        }
        let key = ObjectKey::new("default", format!("ring{place}"));
        desired.services.insert(key, rules);
    }
    desired
}

/// How often a call runs the program, and how often it is called.
const ROUNDS: u32 = 250;
const CALLS: usize = 100;

/// What one run of a program costs, over a packet that it turns into `output`.
fn time(bench: &mut Bench, program: &str, code: i32, input: &[u8], output: &[u8]) -> Duration {
    let link = bench.pod;
    let times = (0..CALLS).map(|_| {
        let (seen, made, took) = bench.run_repeated(program, link, input, ROUNDS);
        assert_eq!((seen, &made[14..]), (code, &output[14..]));
        took
    });
    median(times.collect())
}

#[tokio::test]
async fn cost() {
    const SIZE: u32 = 2;
    let mut bench = Bench::new(&ring(SIZE)).await;
    bench.world.ip(
        "node",
        &format!(
            "neigh add {LOCAL_POD} lladdr 02:00:00:00:00:05 dev {POD_LINK} nud permanent
             route add 10.96.0.0/16 via {LOCAL_POD} dev {POD_LINK} onlink"
        ),
    );
    let other = [0; 60];
    let took = time(&mut bench, "from_pod", PASS, &other, &other);
    println!("neither IPv4 nor IPv6, so that nothing is done: {took:?}");
    for (name, tcp) in [("UDP", None), ("TCP", Some(ACK))] {
        let link = bench.pod;
        let service = address(0).to_string();
        let packet = |flags| Shape {
            ttl: HOPS,
            ..shape((LOCAL_POD, 4000), (&service, 80), flags)
        };
        let answer = Shape {
            ttl: HOPS,
            ..shape((&service, 80), (LOCAL_POD, 4000), tcp)
        };
        for packet in [packet(tcp.map(|_| SYN)), answer, answer, packet(tcp)] {
            let program = if packet == answer {
                "from_overlay"
            } else {
                "from_pod"
            };
            let (code, ..) = bench.run_repeated(program, link, &packet.bytes(), SIZE);
            assert_eq!(code, REDIRECT);
        }
        for (way, program, packet) in [
            ("forward", "from_pod", packet(tcp)),
            ("back", "from_overlay", answer),
        ] {
            let after = Shape {
                ttl: HOPS - ROUNDS as u8,
                ..packet
            };
            let (input, output) = (packet.bytes(), after.bytes());
            let took = time(&mut bench, program, REDIRECT, &input, &output);
            println!("{name}, established, {way}: {took:?}");
        }
    }
}
