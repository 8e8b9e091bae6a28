//! What a packet costs: nanoseconds in the programs by `BPF_PROG_TEST_RUN`. No figure of a busy machine is a failure;
//! that a packet repeated thousands of times is decided another way is one. To see the figures:
//! `cargo test -p seaway-proxy --test ebpf_kernel -- --nocapture cost`.

use std::time::Duration;

use crate::packets::{Bench, PASS, REDIRECT, shape};
use crate::world::{LOCAL_POD, NODE_IP, service};

/// A run changes its packet, so that each is a call of its own; the median leaves out what interrupts.
const RUNS: usize = 5000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn cost() {
    let mut bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    let link = bench.uplink;
    // What the measuring itself costs.
    let other = [0; 60];
    let mut timed = |name, input: &[u8], expected: i32| {
        let times = (0..RUNS).map(|_| {
            let (code, _, took) = bench.run_timed("from_uplink", link, input);
            assert_eq!(code, expected, "{name}");
            took
        });
        println!("{name}: {:?}", median(times.collect()));
    };
    timed("neither IPv4 nor IPv6", &other, PASS);
    for (name, port, tcp, expected) in [
        ("forward, established UDP flow", 30080, None, REDIRECT),
        ("pass, TCP SYN to no frontend", 22, Some(2), PASS),
        ("pass, TCP ACK to no frontend", 22, Some(16), PASS),
    ] {
        let packet = shape(("192.168.77.200", 40000), (NODE_IP, port), tcp).bytes();
        timed(name, &packet, expected);
    }
}
