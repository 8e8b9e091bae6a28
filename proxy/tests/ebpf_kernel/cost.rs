//! What a packet costs: nanoseconds in the programs by `BPF_PROG_TEST_RUN`. Not part of the suite, since no figure of a
//! busy machine is a failure: `cargo test -p seaway-proxy --test ebpf_kernel -- --ignored --nocapture cost`.

use std::time::Duration;

use crate::packets::{Bench, shape};
use crate::world::{LOCAL_POD, NODE_IP, service};

/// A run changes its packet, so that each is a call of its own; the median leaves out what interrupts.
const RUNS: usize = 5000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
#[ignore = "a measurement"]
async fn cost() {
    let mut bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    let link = bench.uplink;
    // What the measuring itself costs.
    let other = [0; 60];
    let times = (0..RUNS).map(|_| bench.run_timed("from_uplink", link, &other).2);
    println!("neither IPv4 nor IPv6: {:?}", median(times.collect()));
    for (name, port, tcp) in [
        ("forward, established UDP flow", 30080, None),
        ("pass, TCP SYN to no frontend", 22, Some(2)),
        ("pass, TCP ACK to no frontend", 22, Some(16)),
    ] {
        let packet = shape(("192.168.77.200", 40000), (NODE_IP, port), tcp).bytes();
        let times = (0..RUNS).map(|_| bench.run_timed("from_uplink", link, &packet).2);
        println!("{name}: {:?}", median(times.collect()));
    }
}
