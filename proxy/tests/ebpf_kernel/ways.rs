//! The short way of established flows: it says the same as the long one, and ends when anything changes. It shows in the
//! Ethernet header, which the long way leaves to the kernel.

use std::time::{Duration, Instant};

use seaway_proxy::dataplane::Dataplane;

use crate::packets::{ACK, Bench, OUTSIDE, REDIRECT, SYN, Shape, shape};
use crate::world::{LOCAL_POD, NODE_IP, POD_LINK, REMOTE_POD, service, sync};

/// Destinations of Ethernet headers: as tests send them, and of the pod.
const AS_SENT: [u8; 6] = [4; 6];
const POD: [u8; 6] = [2, 0, 0, 0, 0, 5];

async fn bench() -> Bench {
    let bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    bench.world.ip(
        "node",
        &format!("neigh add {LOCAL_POD} lladdr 02:00:00:00:00:05 dev {POD_LINK} nud permanent"),
    );
    bench
}

/// Sends a packet of the client; where it goes, and what it looks like then.
fn send(bench: &mut Bench, packet: Shape) -> ([u8; 6], Shape) {
    let link = bench.uplink;
    let (code, bytes) = bench.run_bytes("from_uplink", link, &packet.bytes());
    assert_eq!(code, REDIRECT);
    (bytes[..6].try_into().unwrap(), Shape::read(&bytes))
}

#[tokio::test]
async fn the_short_way_says_the_same_as_the_long_one() {
    let mut bench = bench().await;
    for tcp in [None, Some(ACK)] {
        let from = |flags| shape((OUTSIDE, 40000), (NODE_IP, 30080), flags);
        let (way, first) = send(&mut bench, from(tcp.map(|_| SYN)));
        assert_eq!(way, AS_SENT);
        let own = first.src.to_string();
        let answer = |flags| shape((LOCAL_POD, 8080), (&own, first.sport), flags);
        let (_, answered) = bench.run("from_pod", answer(tcp.map(|_| SYN | ACK)));
        let packet = from(tcp);
        let (_, long) = send(&mut bench, packet);
        for _ in 0..3 {
            let (way, short) = send(&mut bench, packet);
            assert_eq!((way, short), (POD, long), "{tcp:?}");
        }
        for _ in 0..3 {
            let (code, back) = bench.run("from_pod", answer(tcp));
            let expected = Shape { tcp, ..answered };
            assert_eq!((code, back), (REDIRECT, expected));
        }
        // What the end of a connection says is taken note of, and a new one begins anew.
        if tcp.is_some() {
            assert_eq!(send(&mut bench, from(Some(4))).0, AS_SENT);
            send(&mut bench, from(Some(SYN)));
            assert_eq!(bench.counter("new_flow"), 3);
        }
    }
}

#[tokio::test]
async fn a_flow_without_a_checksum_stays_without_one() {
    let mut bench = bench().await;
    let mut none = shape((OUTSIDE, 5), (NODE_IP, 30080), None).bytes();
    none[40..42].copy_from_slice(&[0, 0]);
    let link = bench.uplink;
    for way in [AS_SENT, POD, POD] {
        let (code, output) = bench.run_bytes("from_uplink", link, &none);
        assert_eq!((code, &output[..6]), (REDIRECT, &way[..]));
        assert_eq!(output[40..42], [0, 0]);
        assert_eq!(Shape::read(&output).dport, 8080);
    }
}

#[tokio::test]
async fn a_change_ends_the_short_way() {
    let mut bench = bench().await;
    let packet = shape((OUTSIDE, 40000), (NODE_IP, 30080), None);
    let settled = |bench: &mut Bench| (0..3).map(|_| send(bench, packet).0).last();
    assert_eq!(settled(&mut bench), Some(POD));
    // Of any Service.
    let both = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    sync(&mut bench.plane, &both).await;
    assert_eq!(send(&mut bench, packet).0, AS_SENT);
    assert_eq!(settled(&mut bench), Some(POD));
    // Of a route.
    bench.world.ip(
        "node",
        &format!(
            "neigh add 10.244.1.99 lladdr 02:00:00:00:00:99 dev {POD_LINK} nud permanent
             route replace {LOCAL_POD}/32 via 10.244.1.99 dev {POD_LINK} onlink"
        ),
    );
    let started = Instant::now();
    while settled(&mut bench) != Some([2, 0, 0, 0, 0, 0x99]) {
        assert!(started.elapsed() < Duration::from_secs(5));
        let _ = tokio::time::timeout(Duration::from_millis(5), bench.plane.watch()).await;
    }
    // Of the endpoints: the flow moves on.
    sync(&mut bench.plane, &service(&[(REMOTE_POD, false)])).await;
    assert_eq!(send(&mut bench, packet).1.dst.to_string(), REMOTE_POD);
}
