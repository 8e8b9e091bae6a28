//! What is counted, against what happened.

use std::time::{Duration, Instant};

use seaway_ebpf_abi::counters::Tally;
use seaway_ebpf_abi::event::{EVENT_FAR, EVENT_NODE_PORT, EVENT_SOCKET, WANT_DROPS, WANT_FLOWS};
use seaway_ebpf_abi::{Event, Verdict};
use seaway_model::{Change, Desired, ObjectKey};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{
    EbpfConfig, EbpfDataplane, Listening, MapSizes, Observed, Pinned, Snapshot,
};

use crate::packets::{Bench, REDIRECT, shape};
use crate::world::{CLUSTER_IP, LOCAL_POD, MANY, NODE_IP, POD_LINK, World, service, sync};

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
        flows.evictions().unwrap() + flows.entries,
        2 * u64::from(FLOWS),
        "two entries a flow: here or pushed out"
    );
    let backends = snapshot.maps.iter().find(|map| map.name == "BACKENDS");
    assert_eq!(backends.unwrap().entries, 1, "TCP and UDP share their set");
}

/// Each table that programs fill and that makes room by itself is overfilled: what is not there was pushed out, and is counted so.
#[tokio::test]
async fn every_table_says_what_it_pushed_out() {
    const ROOM: u32 = 128;
    let world = World::new();
    world.serve("pod", "local");
    let mut desired = service(&[(LOCAL_POD, true)]);
    for rules in desired.services.values_mut() {
        for port in &mut rules.ports {
            port.affinity = Some(Duration::from_secs(3600));
        }
    }
    let mut bench = Bench::over(world, &desired, |config| EbpfConfig {
        sizes: MapSizes {
            affinity: ROOM,
            sockets: ROOM,
            ..MapSizes::default()
        },
        ..config
    })
    .await;
    let observed = Observed::default();
    bench.plane = bench.plane.observed_by(&observed);
    let many = format!("many {CLUSTER_IP}:80");
    assert_eq!(bench.world.client("node", true, &many), "done");
    let link = bench.uplink;
    for client in 0..MANY {
        let from = format!("192.168.{}.{}", 100 + client / 200, 1 + client % 200);
        // Each comes twice in a row, and is one client.
        for port in [20_000, 20_001] {
            let packet = shape((&from, port), (NODE_IP, 30080), None);
            let (code, _) = bench.run_bytes("from_uplink", link, &packet.bytes());
            assert_eq!(code, REDIRECT);
        }
    }
    let snapshot = look_through(&mut bench.plane, &observed).await;
    for (name, added) in [
        ("SOCKETS_TCP", MANY),
        ("SOCKETS_UDP", MANY),
        ("STEADY", MANY),
        // The sockets are one client of each of the two ports, too: their network namespace.
        ("AFFINITY", MANY + 2),
    ] {
        let map = snapshot.maps.iter().find(|map| map.name == name).unwrap();
        assert_eq!(map.max_entries, u64::from(ROOM), "{map:?}");
        assert!(map.entries <= u64::from(ROOM), "{map:?}");
        assert_eq!(map.evictions().unwrap() + map.entries, added, "{map:?}");
    }
    let silent = snapshot.maps.iter().find(|map| map.name == "BACKENDS");
    assert_eq!(silent.unwrap().evictions(), None);
}

/// A client whose time is over goes by itself, and was not pushed out.
#[tokio::test]
async fn clients_with_affinity_go_when_their_time_is_over() {
    const CLIENTS: u16 = 10;
    let mut desired = service(&[(LOCAL_POD, true)]);
    for rules in desired.services.values_mut() {
        for port in &mut rules.ports {
            port.affinity = Some(Duration::from_secs(1));
        }
    }
    let mut bench = Bench::new(&desired).await;
    let observed = Observed::default();
    bench.plane = bench.plane.observed_by(&observed);
    let link = bench.uplink;
    for client in 1..=CLIENTS {
        let from = format!("192.168.100.{client}");
        let packet = shape((&from, 20_000), (NODE_IP, 30080), None);
        let (code, _) = bench.run_bytes("from_uplink", link, &packet.bytes());
        assert_eq!(code, REDIRECT);
    }
    let clients = |snapshot: &Snapshot| {
        let map = snapshot.maps.iter().find(|map| map.name == "AFFINITY");
        map.map(|map| (map.entries, map.evictions().unwrap()))
    };
    let first = look_through(&mut bench.plane, &observed).await;
    assert_eq!(clients(&first), Some((u64::from(CLIENTS), 0)));
    let started = Instant::now();
    loop {
        // The comparison with the kernel, once a minute, has them go; the look at the tables sees it.
        tokio::time::pause();
        let _ = tokio::time::timeout(Duration::from_secs(61), bench.plane.watch()).await;
        tokio::time::resume();
        let found = clients(&observed.snapshot().unwrap().unwrap());
        if found == Some((0, 0)) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The events that came until one has that verdict.
async fn until(listening: &mut Listening, last: Verdict) -> Vec<Event> {
    let mut told = Vec::new();
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !told
            .iter()
            .any(|event: &Event| event.verdict == last as u32)
        {
            told.extend(listening.next().await);
        }
    });
    assert!(waited.await.is_ok(), "no {} in {told:?}", last.label());
    told
}

/// A listener hears of a flow's beginning and end, by whatever way it came; and the programs stop when it is gone.
#[tokio::test]
async fn who_listens_hears_of_flows_and_drops() {
    let world = World::new();
    world.serve("pod", "local");
    let mut plane = world.plane(world.config());
    assert!(Pinned::find(&world.bpffs).is_none(), "nothing runs yet");
    let serving = service(&[(LOCAL_POD, true)]);
    sync(&mut plane, &serving).await;
    let pinned = Pinned::find(&world.bpffs).unwrap();
    let mut listening = Listening::start(&pinned, WANT_FLOWS | WANT_DROPS, 1).unwrap();
    let error = Listening::start(&pinned, WANT_FLOWS, 1).err().unwrap();
    assert!(error.to_string().contains("another"), "{error}");

    let node_port = format!("tcp {NODE_IP}:30080");
    assert!(world.client("out", false, &node_port).starts_with("local"));
    let told = until(&mut listening, Verdict::FlowClosed).await;
    let [begun, closed] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(begun.verdict, Verdict::NewFlow as u32);
    assert_eq!(begun.flags, EVENT_FAR | EVENT_NODE_PORT);
    assert_eq!(begun.frontend.ip().to_string(), NODE_IP);
    assert_eq!(begun.backend.ip().to_string(), LOCAL_POD);
    assert_ne!(begun.source, begun.client, "masqueraded");
    let same = Event {
        at: closed.at,
        verdict: closed.verdict,
        ..*begun
    };
    assert_eq!(*closed, same, "told with the same addresses");

    assert!(
        world
            .client("node", true, &format!("tcp {CLUSTER_IP}:80"))
            .starts_with("local")
    );
    let told = until(&mut listening, Verdict::SocketConnect).await;
    let connect = told.last().unwrap();
    assert_eq!(connect.flags, EVENT_SOCKET);
    assert_eq!(connect.netns, listening.node_netns());
    assert_eq!(connect.backend.ip().to_string(), LOCAL_POD);

    // Only what goes wrong, from now on.
    drop(listening);
    let mut listening = Listening::start(&pinned, WANT_DROPS, 1).unwrap();
    assert!(world.client("out", false, &node_port).starts_with("local"));
    sync(&mut plane, &service_without_endpoints(&serving)).await;
    world.client("out", false, &node_port);
    world.client("node", true, &format!("udp {CLUSTER_IP}:80"));
    let told = until(&mut listening, Verdict::SocketRefused).await;
    let verdicts: Vec<u32> = told.iter().map(|event| event.verdict).collect();
    let expected = [Verdict::Rejected, Verdict::SocketRefused].map(|v| v as u32);
    assert_eq!(verdicts, expected, "{told:?}");
    assert_eq!(listening.renew().unwrap(), Some(0), "nothing was lost");

    // Nobody listens: the next one is told nothing of what was before.
    drop(listening);
    world.client("out", false, &node_port);
    let mut listening = Listening::start(&pinned, WANT_DROPS, 1).unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(100), listening.next()).await;
    assert!(silence.is_err(), "{silence:?}");
}

/// Another process reads what there is, with names; and of what is attached it says nothing, whichever way it is.
async fn a_dump_names(tcx: bool, attached: &str, lose_one: impl Fn(&World)) {
    let world = World::new();
    world.serve("pod", "local");
    let mut plane = world.plane(EbpfConfig {
        tcx: Some(tcx),
        ..world.config()
    });
    let desired = service(&[(LOCAL_POD, true)]);
    sync(&mut plane, &desired).await;
    assert!(
        world
            .client("out", false, &format!("tcp {NODE_IP}:30080"))
            .starts_with("local")
    );
    let mut reader = world.plane(world.config()).naming(&desired);
    let mut text = reader.dump().await.unwrap();
    // The last packets of the connection may still be on their way.
    let started = Instant::now();
    while !text.contains(" closed, silent ") && started.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        text = reader.dump().await.unwrap();
    }
    for part in [
        &format!("  {CLUSTER_IP}:80/tcp default/echo ClusterIP -> set "),
        "  node:30080/udp default/echo NodePort -> set ",
        &format!("  {CLUSTER_IP}, everything else default/echo "),
        "  FRONTENDS          5 of ",
        "  FLOWS              2 of ",
        "flows: 1 (2 entries)\n  default/echo tcp 192.168.77.200:",
        " closed, silent ",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    // In two directions of the uplink, the pod and the overlay.
    let places = text.lines().filter(|line| line.starts_with(attached));
    assert_eq!(places.count(), 6, "{text}");
    reader.observe().await.unwrap();
    let to_do = |reader: &EbpfDataplane| reader.plan(&desired, &Change::Full).to_string();
    assert_eq!(to_do(&reader), "# nothing to do\n");
    assert_eq!(plane.difference().unwrap(), None);

    lose_one(&world);
    reader.observe().await.unwrap();
    let left = to_do(&reader);
    assert!(
        left.starts_with("! attach to ") && left.lines().count() == 1,
        "{left}"
    );
    let lost = plane.difference().unwrap().unwrap();
    assert!(lost.ends_with(" is no longer attached"), "{lost}");
}

#[tokio::test]
async fn a_dump_names_services_and_only_what_is_left_to_do() {
    a_dump_names(true, "  tc_", |world| {
        let links = Pinned::find(&world.bpffs).unwrap().dir().join("links");
        let pins = std::fs::read_dir(&links).unwrap();
        let lost = pins
            .map(|pin| pin.unwrap().file_name().into_string().unwrap())
            .find(|name| name.starts_with("tc_"))
            .unwrap();
        std::fs::remove_file(links.join(lost)).unwrap();
    })
    .await;
}

#[tokio::test]
async fn so_it_does_with_filters() {
    a_dump_names(false, "  filter_", |world| {
        let delete = format!("filter del dev {POD_LINK} ingress pref 1514");
        let status = world.netns("node").run(|| {
            let mut tc = std::process::Command::new("tc");
            tc.args(delete.split(' ')).status().unwrap()
        });
        assert!(status.unwrap().success());
    })
    .await;
}
