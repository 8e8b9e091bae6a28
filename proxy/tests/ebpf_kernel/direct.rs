//! Which nodes are sent clients' packets as they are, and what becomes of such flows when a node goes over to rules.

use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use seaway_cluster::direct::Answering;
use seaway_model::{Desired, DirectAnswers};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfDataplane, HandBack};
use tokio::sync::watch;

use crate::dsr::{Peer, counter, dsr, entry};
use crate::packets::{ACK, Bench, OUTSIDE, PASS, REDIRECT, SYN, Shape, shape};
use crate::world::{NODE_IP, REMOTE_POD, World, ask, service, sync};

/// What becomes of a client's packet.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    SentOn,
    Masqueraded,
    Stack,
}

fn way(bench: &mut Bench, packet: Shape) -> Way {
    match bench.run("from_uplink", packet) {
        (REDIRECT, seen) if seen == packet => Way::SentOn,
        (REDIRECT, seen) if seen.dst.to_string() == REMOTE_POD => Way::Masqueraded,
        (PASS, seen) if seen == packet => Way::Stack,
        other => panic!("{packet:?}: {other:?}"),
    }
}

#[tokio::test]
async fn only_nodes_that_say_so_are_sent_packets() {
    let desired = service(&[(REMOTE_POD, false)]);
    let mut bench = Bench::with(&desired, dsr).await;
    let (says, heard) = watch::channel(None);
    bench.plane = {
        let mut plane = bench.world.plane(dsr(bench.world.config())).hearing(heard);
        sync(&mut plane, &desired).await;
        plane
    };
    let mut sport = 40000;
    let mut new = move || {
        sport += 1;
        shape((OUTSIDE, sport), (NODE_IP, 30080), None)
    };
    let tcp = |flags| shape((OUTSIDE, 30000), (NODE_IP, 30080), Some(flags));
    // What was known before holds until all nodes have been listed.
    let udp = new();
    assert_eq!(way(&mut bench, udp), Way::SentOn);
    for flags in [SYN, ACK] {
        assert_eq!(way(&mut bench, tcp(flags)), Way::SentOn);
    }
    for (answers, begins, goes_on_udp, goes_on_tcp) in [
        (DirectAnswers::All, Way::SentOn, Way::SentOn, Way::SentOn),
        (
            DirectAnswers::Begun,
            Way::Masqueraded,
            Way::SentOn,
            Way::SentOn,
        ),
        (
            DirectAnswers::No,
            Way::Masqueraded,
            Way::Masqueraded,
            Way::Stack,
        ),
        // Another life.
        (
            DirectAnswers::All,
            Way::SentOn,
            Way::Masqueraded,
            Way::Stack,
        ),
    ] {
        let node = "192.168.77.2".parse().unwrap();
        says.send_replace(Some(Answering::from([(node, answers)])));
        let expected = [begins, goes_on_udp, goes_on_tcp];
        let started = Instant::now();
        loop {
            let seen = [new(), udp, tcp(ACK)].map(|packet| way(&mut bench, packet));
            if seen == expected {
                break;
            }
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{answers:?}: {seen:?}"
            );
            let _ = tokio::time::timeout(Duration::from_millis(1), bench.plane.watch()).await;
        }
    }
}

/// From programs to rules, as far as the programs have a part in it.
async fn leave(plane: &mut EbpfDataplane, desired: &Desired) {
    let mut handed = HandBack::default();
    plane.hand_back(&mut handed, desired).await.unwrap();
    assert_eq!((handed.flows(), handed.left()), (0, Vec::new()));
    plane.withdraw().await.unwrap();
}

/// And back.
async fn return_to(plane: &mut EbpfDataplane, desired: &Desired) {
    assert!(!plane.succeeds_programs().unwrap(), "rules serve");
    plane.begin_handover().unwrap();
    sync(plane, desired).await;
    let adoption = plane.adopt(desired).await.unwrap();
    assert_eq!(adoption.flows(), 0);
    plane.forget(adoption).await.unwrap();
    assert!(plane.succeeds_programs().unwrap());
}

#[tokio::test]
async fn direct_flows_go_on_while_nodes_go_over_to_rules_and_back() {
    let world = World::new();
    let mut plane = entry(&world, REMOTE_POD).await;
    let (here, there) = (
        service(&[(REMOTE_POD, false)]),
        service(&[(REMOTE_POD, true)]),
    );
    let mut peer = Peer::with(&world, &there, dsr).await;
    let frontend = format!("{NODE_IP}:30080");
    let (mut tcp, udp) = world
        .netns("out")
        .run(|| {
            let tcp = TcpStream::connect(&frontend).unwrap();
            let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
            udp.connect(&frontend).unwrap();
            (tcp, udp)
        })
        .unwrap();
    let limit = Some(Duration::from_secs(20));
    tcp.set_read_timeout(limit).unwrap();
    udp.set_read_timeout(limit).unwrap();
    let mut turn = 0;
    let mut go_on = |step: &str| {
        turn += 1;
        let word = format!("turn{turn}");
        let answer = ask(&mut tcp, &word).unwrap();
        assert!(
            answer.starts_with("remote ") && answer.ends_with(&word),
            "{step}: {answer}"
        );
        udp.send(word.as_bytes()).unwrap();
        let mut buffer = [0; 256];
        let len = udp.recv(&mut buffer).unwrap();
        let answer = String::from_utf8_lossy(&buffer[..len]);
        assert!(
            answer.starts_with("remote ") && answer.ends_with(&word),
            "{step}: {answer}"
        );
    };
    go_on("programs");
    assert_eq!(plane.direct_flows().unwrap(), 2);
    leave(&mut peer.plane, &there).await;
    go_on("rules at the backend's node");
    leave(&mut plane, &here).await;
    go_on("rules at both");
    assert_eq!(plane.direct_flows().unwrap(), 2);
    return_to(&mut peer.plane, &there).await;
    go_on("rules where packets enter");
    return_to(&mut plane, &here).await;
    go_on("programs again");
    let sent_on = counter(&plane, "sent_on");
    assert!(
        world
            .client("out", false, &format!("tcp {frontend}"))
            .starts_with("remote ")
    );
    assert!(
        counter(&plane, "sent_on") > sent_on,
        "what begins is sent on again"
    );
}
