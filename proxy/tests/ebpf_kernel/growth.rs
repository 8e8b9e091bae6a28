//! Tables of Services begin small and grow under traffic, without a packet being lost.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::MapData;
use seaway_ebpf_abi::maps;
use seaway_kernel::NetNs;
use seaway_model::{Algorithm, Change, Desired, FrontendAddr, ObjectKey};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, MapSizes};

use crate::lifecycle::connect;
use crate::world::{LOCAL_POD, NODE_IP, REMOTE_POD, World, ask, service, sync};

/// New connections and datagrams from outside, all the time; what went wrong with any of them.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Traffic {
    pub(crate) fn start(world: &World) -> Self {
        let addr: SocketAddr = format!("{NODE_IP}:30080").parse().unwrap();
        let (stop, done) = (Arc::default(), Arc::default());
        let kinds: [fn(SocketAddr) -> std::io::Result<()>; 2] = [over_tcp, over_udp];
        let start = |kind: &fn(SocketAddr) -> std::io::Result<()>| {
            let (netns, kind) = (world.netns("out"), *kind);
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            thread::spawn(move || keep_on(&netns, addr, kind, &stop, &done))
        };
        Self {
            threads: kinds.iter().map(start).collect(),
            stop,
            done,
        }
    }

    /// Ends it; there was some, and all of it went well.
    pub(crate) fn went_well(self) {
        self.stop.store(true, Ordering::Relaxed);
        let errors = self.threads.into_iter().flat_map(|t| t.join().unwrap());
        let errors: Vec<String> = errors.collect();
        let done = self.done.load(Ordering::Relaxed);
        assert_eq!(
            errors,
            Vec::<String>::new(),
            "besides {done} that went well"
        );
        assert!(done > 20, "{done}");
    }
}

fn keep_on(
    netns: &NetNs,
    addr: SocketAddr,
    kind: fn(SocketAddr) -> std::io::Result<()>,
    stop: &AtomicBool,
    done: &AtomicUsize,
) -> Vec<String> {
    let _inside = netns.enter().unwrap();
    let mut errors = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match kind(addr) {
            Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
            Err(error) => errors.push(error.to_string()),
        }
    }
    errors
}

fn over_tcp(addr: SocketAddr) -> std::io::Result<()> {
    // Less than the second after which a lost SYN is sent again would be too little on a busy machine: a loss shows as an answer
    // that takes longer than all of this, or as a reset.
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    ask(&mut stream, "new").map(drop)
}

fn over_udp(addr: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect(addr)?;
    socket.send(b"new")?;
    socket.recv(&mut [0; 64]).map(drop)
}

/// Services besides the one that is asked, until there are that many; the new ones.
fn add(desired: &mut Desired, count: usize) -> BTreeSet<ObjectKey> {
    let model = desired.services[&ObjectKey::new("default", "echo")].clone();
    let mut added = BTreeSet::new();
    for number in desired.services.len()..=count {
        let [_, a, b, c] = (number as u32).to_be_bytes();
        let mut rules = model.clone();
        rules.algorithm = Algorithm::Random;
        for port in &mut rules.ports {
            port.frontends.truncate(1);
            port.frontends[0].addr = FrontendAddr::Ip([10, 97 + a, b, c].into());
        }
        let key = ObjectKey::new("default", format!("service-{number}"));
        desired.services.insert(key.clone(), rules);
        added.insert(key);
    }
    added
}

fn size(dir: &Path, map: &str) -> u32 {
    let map = MapData::from_pin(dir.join(map)).unwrap();
    map.info().unwrap().max_entries()
}

async fn grows(tcx: bool, counts: &[usize]) {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let config = EbpfConfig {
        tcx: Some(tcx),
        sizes: MapSizes {
            frontends: 8,
            backends: 8,
            maglev: 16,
            ..MapSizes::default()
        },
        ..world.config()
    };
    let dir = world
        .bpffs
        .join(format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION));
    let mut plane = world.plane(config.clone());
    let mut desired = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    for rules in desired.services.values_mut() {
        rules.algorithm = Algorithm::Maglev;
    }
    sync(&mut plane, &desired).await;
    assert!(size(&dir, maps::FRONTENDS) <= 16, "a small start");

    let out = world.netns("out");
    let address = format!("{NODE_IP}:30080");
    let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(&out, &address)).collect();
    let asked = |streams: &mut Vec<TcpStream>| -> Vec<String> {
        let each = streams.iter_mut();
        each.map(|stream| ask(stream, "one").unwrap()).collect()
    };
    let before = asked(&mut streams);
    let traffic = Traffic::start(&world);
    for count in counts {
        let added = add(&mut desired, *count);
        let plan = plane.plan(&desired, &Change::Services(added));
        plane.apply(plan).await.unwrap();
        assert_eq!(asked(&mut streams), before, "established connections stay");
        // Three entries each: TCP, UDP and all other ports.
        assert!(size(&dir, maps::FRONTENDS) as usize >= 3 * count / 3 * 4);
        assert!(size(&dir, maps::BACKENDS) as usize >= 2 * count);
    }
    traffic.went_well();
    let pins = std::fs::read_dir(&dir).unwrap().count();
    assert_eq!(pins, maps::ALL.len() + 1, "maps and the directory of links");

    // The next start finds it all in the larger tables.
    drop(plane);
    let mut plane = world.plane(config);
    let plan = sync(&mut plane, &desired).await;
    let mut steps = plan.lines().filter(|line| line.starts_with(['+', '-']));
    assert_eq!(steps.next(), None, "no entry is written");
    assert_eq!(asked(&mut streams), before);
}

#[tokio::test]
async fn tables_grow_under_traffic() {
    grows(true, &[40, 400, 30_000]).await;
}

#[tokio::test]
async fn so_they_do_with_filters() {
    grows(false, &[40, 400]).await;
}

/// A start with a larger number of flows: those that there are go on, through it and afterwards.
#[tokio::test]
async fn tables_of_flows_grow_at_the_next_start() {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let config = |flows| EbpfConfig {
        sizes: MapSizes::for_flows(flows),
        ..world.config()
    };
    let dir = world
        .bpffs
        .join(format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION));
    let desired = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    let mut plane = world.plane(config(2048));
    sync(&mut plane, &desired).await;
    assert_eq!(size(&dir, maps::FLOWS), 4096);
    let out = world.netns("out");
    let address = format!("{NODE_IP}:30080");
    let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(&out, &address)).collect();
    let asked = |streams: &mut Vec<TcpStream>| -> Vec<String> {
        let each = streams.iter_mut();
        each.map(|stream| ask(stream, "one").unwrap()).collect()
    };
    let before = asked(&mut streams);
    // The last one asks for less, and changes nothing.
    for (flows, expected) in [(8192, 8192), (16_384, 16_384), (2048, 16_384)] {
        let mut next = world.plane(config(flows));
        sync(&mut next, &desired).await;
        plane = next;
        assert_eq!(size(&dir, maps::FLOWS), 2 * expected);
        for name in [
            maps::AFFINITY,
            maps::SOCKETS_TCP,
            maps::SOCKETS_UDP,
            maps::STEADY,
        ] {
            assert_eq!(size(&dir, name), expected, "{name}");
        }
        assert_eq!(asked(&mut streams), before, "established connections stay");
        // The programs at work write to the larger tables.
        streams.push(connect(&out, &address));
        assert!(ask(streams.last_mut().unwrap(), "new").is_ok());
        streams.pop();
    }
    let pins = std::fs::read_dir(&dir).unwrap().count();
    assert_eq!(pins, maps::ALL.len() + 1, "maps and the directory of links");
    drop(plane);
}

/// One changed Service costs the same beside 100 Services and beside 30,000: what a plan and its writes take, as the median of
/// many changes. No figure of a busy machine is a failure, but a hundred times the Services must not be several times the
/// work. To see the figures: `cargo test -p seaway-proxy --test ebpf_kernel -- --nocapture a_change_costs`.
#[tokio::test]
async fn a_change_costs_its_service_only() {
    let world = World::new();
    let mut plane = world.plane(world.config());
    let mut desired = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    let echo = ObjectKey::new("default", "echo");
    sync(&mut plane, &desired).await;
    let mut medians = Vec::new();
    for count in [100, 10_000, 30_000] {
        let added = add(&mut desired, count);
        let plan = plane.plan(&desired, &Change::Services(added));
        plane.apply(plan).await.unwrap();
        let mut times = Vec::new();
        for turn in 0..200 {
            let next = match turn % 2 {
                0 => service(&[(LOCAL_POD, true)]),
                _ => service(&[(LOCAL_POD, true), (REMOTE_POD, false)]),
            };
            desired
                .services
                .insert(echo.clone(), next.services[&echo].clone());
            let change = Change::Services(BTreeSet::from([echo.clone()]));
            let started = Instant::now();
            let plan = plane.plan(&desired, &change);
            let done = plane.apply(plan).await.unwrap();
            times.push(started.elapsed());
            assert!((4..20).contains(&done.operations), "{done:?}");
        }
        times.sort_unstable();
        println!(
            "a change beside {count} Services: {:?}, p99 {:?}",
            times[100], times[198]
        );
        medians.push(times[100]);
    }
    let started = Instant::now();
    plane.observe().await.unwrap();
    println!("reading all of it back: {:?}", started.elapsed());
    assert!(medians[2] < 4 * medians[0], "{medians:?}");
}
