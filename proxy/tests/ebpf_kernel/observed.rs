//! What is counted, against what happened.

use std::time::{Duration, Instant};

use seaway_ebpf_abi::Verdict;
use seaway_ebpf_abi::counters::Tally;
use seaway_model::{Desired, ObjectKey};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, MapSizes, Observed, Snapshot};

use crate::packets::{Bench, REDIRECT, shape};
use crate::world::{CLUSTER_IP, LOCAL_POD, NODE_IP, World, service, sync};

fn counted(snapshot: &Snapshot, verdict: Verdict, outside: bool) -> u64 {
    let what = verdict.tally().unwrap();
    let service = Some(ObjectKey::new("default", "echo"));
    let found = snapshot.services.get(&(service, Tally { what, outside }));
    found.copied().unwrap_or(0)
}

/// Flows at one Service are told apart by where the client is and by what became of them, whoever saw them.
#[tokio::test]
async fn flows_and_drops_are_counted_for_their_service() {
    let world = World::new();
    world.serve("pod", "local");
    let observed = Observed::default();
    assert_eq!(observed.snapshot().unwrap(), None, "nothing runs yet");
    let mut plane = world.plane(world.config()).observed_by(&observed);
    let serving = service(&[(LOCAL_POD, true)]);
    sync(&mut plane, &serving).await;
    for (from, in_cgroup, what) in [
        ("node", true, format!("tcp {CLUSTER_IP}:80")),
        ("node", true, format!("udp {CLUSTER_IP}:80")),
        ("peer", false, format!("tcp {NODE_IP}:30080")),
        ("out", false, format!("tcp {NODE_IP}:30080")),
        ("out", false, format!("udp {NODE_IP}:30080")),
    ] {
        let answer = world.client(from, in_cgroup, &what);
        assert!(answer.starts_with("local"), "{from} {what}: {answer}");
    }
    let snapshot = observed.snapshot().unwrap().unwrap();
    // A connection and a socket whose three datagrams are one flow; then three flows from outside of the pod network.
    assert_eq!(counted(&snapshot, Verdict::NewFlow, false), 2);
    assert_eq!(counted(&snapshot, Verdict::NewFlow, true), 3);
    assert_eq!(counted(&snapshot, Verdict::Rejected, false), 0);

    sync(&mut plane, &service_without_endpoints(&serving)).await;
    for (from, in_cgroup) in [("node", true), ("out", false)] {
        let addr = if in_cgroup { CLUSTER_IP } else { NODE_IP };
        let port = if in_cgroup { 80 } else { 30080 };
        let answer = world.client(from, in_cgroup, &format!("tcp {addr}:{port}"));
        assert_eq!(answer, "error ConnectionRefused", "{from}");
    }
    let snapshot = observed.snapshot().unwrap().unwrap();
    assert_eq!(counted(&snapshot, Verdict::Rejected, false), 1);
    assert_eq!(counted(&snapshot, Verdict::Rejected, true), 1);
    assert_eq!(counted(&snapshot, Verdict::NewFlow, false), 2, "as before");

    drop(plane);
    assert_eq!(observed.snapshot().unwrap(), None, "nothing runs any more");
}

fn service_without_endpoints(serving: &Desired) -> Desired {
    let mut desired = serving.clone();
    for rules in desired.services.values_mut() {
        for port in &mut rules.ports {
            port.cluster.clear();
            port.local.clear();
            port.any_endpoints = false;
        }
    }
    desired
}

/// Lets the data plane look through its flows, as it does every 15 seconds.
async fn look_through(plane: &mut EbpfDataplane, observed: &Observed) -> Snapshot {
    tokio::time::pause();
    let _ = tokio::time::timeout(Duration::from_secs(16), plane.watch()).await;
    tokio::time::resume();
    // It does so on another thread.
    let started = Instant::now();
    loop {
        let snapshot = observed.snapshot().unwrap().unwrap();
        if !snapshot.maps.is_empty() || started.elapsed() > Duration::from_secs(10) {
            return snapshot;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// More flows than the table holds: each that was pushed out is counted, and nothing else.
#[tokio::test]
async fn evictions_are_counted_though_nobody_sees_them() {
    const FLOWS: u16 = 3000;
    let sizes = MapSizes {
        flows: 2048,
        ..MapSizes::default()
    };
    let mut bench = Bench::with(&service(&[(LOCAL_POD, true)]), |config| EbpfConfig {
        sizes,
        ..config
    })
    .await;
    let observed = Observed::default();
    bench.plane = bench.plane.observed_by(&observed);
    let link = bench.uplink;
    for port in 0..FLOWS {
        let packet = shape(("192.168.77.200", 20_000 + port), (NODE_IP, 30080), None);
        let (code, _) = bench.run_bytes("from_uplink", link, &packet.bytes());
        assert_eq!(code, REDIRECT);
    }
    let snapshot = look_through(&mut bench.plane, &observed).await;
    let flows = snapshot
        .maps
        .iter()
        .find(|map| map.name == "FLOWS")
        .unwrap();
    assert_eq!(flows.max_entries, 2048);
    assert!(flows.entries <= 2048, "{flows:?}");
    assert!(flows.memory_bytes > 2048 * 96, "{flows:?}");
    assert_eq!(
        snapshot.evictions + flows.entries,
        2 * u64::from(FLOWS),
        "two entries a flow: here or pushed out"
    );
    let backends = snapshot.maps.iter().find(|map| map.name == "BACKENDS");
    assert_eq!(backends.unwrap().entries, 1, "TCP and UDP share their set");
}
