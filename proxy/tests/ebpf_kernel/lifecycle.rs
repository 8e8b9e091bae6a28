//! The data plane comes and goes; traffic stays, and nothing of it stays when it is told to leave.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::world::{
    CLUSTER_IP, LOCAL_POD, NODE_IP, POD_LINK, REMOTE_POD, World, ask, service, sync,
};
use seaway_kernel::NetNs;
use seaway_model::Change;
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::EbpfConfig;

pub(crate) fn connect(netns: &NetNs, addr: &str) -> TcpStream {
    let addr = addr.parse().unwrap();
    netns
        .run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(2)).unwrap())
        .unwrap()
}

async fn outlives_its_daemon(config: impl Fn(&World) -> EbpfConfig) {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let desired = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    let mut plane = world.plane(config(&world));
    sync(&mut plane, &desired).await;
    let out = world.netns("out");
    let mut streams: Vec<TcpStream> = (0..8)
        .map(|_| connect(&out, &format!("{NODE_IP}:30080")))
        .collect();
    let before: Vec<String> = streams
        .iter_mut()
        .map(|stream| ask(stream, "one").unwrap())
        .collect();

    // As kill -9 leaves it: no destructor of ours does anything to the kernel.
    drop(plane);
    for (stream, before) in streams.iter_mut().zip(&before) {
        assert_eq!(ask(stream, "one").unwrap(), *before);
    }
    assert!(
        !world
            .client("out", false, &format!("tcp {NODE_IP}:30080"))
            .contains("error")
    );
    assert!(
        !world
            .client("pod", true, &format!("tcp {CLUSTER_IP}:80"))
            .contains("error")
    );

    // The next one finds everything as it should be and writes no entry.
    let mut plane = world.plane(config(&world));
    let plan = sync(&mut plane, &desired).await;
    assert!(
        plan.lines().all(|line| line.starts_with(['!', '#'])),
        "{plan}"
    );
    for (stream, before) in streams.iter_mut().zip(&before) {
        assert_eq!(
            ask(stream, "one").unwrap(),
            *before,
            "the same backend goes on"
        );
    }
    assert!(
        !world
            .client("out", false, &format!("tcp {NODE_IP}:30080"))
            .contains("error")
    );

    // Connections that were bound to a backend stay there when it leaves the Service; new ones go elsewhere.
    let fewer = service(&[(REMOTE_POD, false)]);
    let plan = plane.plan(
        &fewer,
        &Change::Services(fewer.services.keys().cloned().collect()),
    );
    plane.apply(plan).await.unwrap();
    for (stream, before) in streams.iter_mut().zip(&before) {
        assert_eq!(ask(stream, "one").unwrap(), *before);
    }
    for _ in 0..4 {
        let answer = world.client("out", false, &format!("tcp {NODE_IP}:30080"));
        assert!(answer.starts_with("remote"), "{answer}");
    }
}

#[tokio::test]
async fn traffic_and_flows_outlive_the_daemon() {
    outlives_its_daemon(World::config).await;
}

#[tokio::test]
async fn so_they_do_with_filters_where_the_kernel_has_no_tcx() {
    outlives_its_daemon(|world| EbpfConfig {
        tcx: Some(false),
        ..world.config()
    })
    .await;
}

#[tokio::test]
async fn a_new_pod_link_is_served_when_it_comes() {
    // Long before anybody looks whether all is as it should be.
    const LIMIT: Duration = Duration::from_secs(30);
    let world = World::new();
    world.serve("peerpod", "remote");
    world.ip("node", &format!("link del {POD_LINK}"));
    let mut plane = world.plane(world.config());
    sync(&mut plane, &service(&[(REMOTE_POD, false)])).await;
    let pod = world.netns("pod");
    world.ip(
        "node",
        &format!(
            "link add {POD_LINK} mtu 1450 type veth peer name eth0 netns {}
             link set {POD_LINK} address 02:00:00:00:01:01 up
             route add {LOCAL_POD}/32 dev {POD_LINK} scope link",
            pod.path().unwrap().file_name().unwrap().display()
        ),
    );
    world.ip(
        "pod",
        &format!(
            "link set eth0 mtu 1450 up
             address add {LOCAL_POD}/32 dev eth0
             route add 169.254.1.1 dev eth0 scope link
             neigh add 169.254.1.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
             route add default via 169.254.1.1 dev eth0"
        ),
    );
    let started = Instant::now();
    let attached = |text: &str| text.matches("tc_").count();
    let before = attached(&plane.dump().await.unwrap());
    let mut after = before;
    while after == before && started.elapsed() < LIMIT {
        let _ = tokio::time::timeout(Duration::from_millis(5), plane.watch()).await;
        after = attached(&plane.dump().await.unwrap());
    }
    assert_eq!(after, before + 2, "{}", plane.dump().await.unwrap());
    let answer = world.client("pod", false, &format!("tcp {CLUSTER_IP}:80"));
    assert!(answer.starts_with("remote"), "{answer}");

    // Its pins go with it.
    world.ip("node", &format!("link del {POD_LINK}"));
    let started = Instant::now();
    while attached(&plane.dump().await.unwrap()) > before && started.elapsed() < LIMIT {
        let _ = tokio::time::timeout(Duration::from_millis(5), plane.watch()).await;
    }
    let left = attached(&plane.dump().await.unwrap());
    assert!(left < after, "{}", plane.dump().await.unwrap());
}

#[tokio::test]
async fn cleanup_leaves_nothing_and_needs_no_history() {
    for tcx in [true, false] {
        let world = World::new();
        world.serve("pod", "local");
        let config = EbpfConfig {
            tcx: Some(tcx),
            ..world.config()
        };
        let mut plane = world.plane(config.clone());
        sync(&mut plane, &service(&[(LOCAL_POD, true)])).await;
        assert!(
            !world
                .client("out", false, &format!("tcp {NODE_IP}:30080"))
                .contains("error")
        );
        drop(plane);

        let mut other = world.plane(config);
        let lines = other.cleanup().await.unwrap();
        let maps = format!("eBPF maps: {}", seaway_ebpf_abi::maps::ALL.len());
        assert!(lines.contains(&maps), "{lines:?}");
        assert!(!world.bpffs.exists());
        assert_eq!(other.cleanup().await.unwrap(), Vec::<String>::new());
        let node = world.netns("node");
        let path = node.path().unwrap().display().to_string();
        let shown = std::process::Command::new("nsenter")
            .args([&format!("--net={path}"), "tc", "qdisc", "show"])
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(!shown.contains("clsact"), "{shown}");
        let cgroup = std::process::Command::new("bpftool")
            .args(["cgroup", "show", &world.cgroup.display().to_string()])
            .output()
            .unwrap();
        let cgroup = String::from_utf8(cgroup.stdout).unwrap();
        assert!(!cgroup.contains("sock_"), "{cgroup}");
        // Nothing listens on the node port, and nobody translates any more.
        let answer = world.client("out", false, &format!("tcp {NODE_IP}:30080"));
        assert_eq!(answer, "error ConnectionRefused", "tcx {tcx}");
    }
}

/// A build with another layout takes over: what an older one has pinned goes, once the new programs are attached.
#[tokio::test]
async fn another_layout_is_superseded() {
    let world = World::new();
    world.serve("pod", "local");
    let desired = service(&[(LOCAL_POD, true)]);
    let mut plane = world.plane(world.config());
    sync(&mut plane, &desired).await;
    let own = format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION);
    // As if it were an older layout: pins move with their directory.
    std::fs::rename(world.bpffs.join(&own), world.bpffs.join("v1")).unwrap();
    drop(plane);
    let mut plane = world.plane(world.config());
    sync(&mut plane, &desired).await;
    assert!(!world.bpffs.join("v1").exists());
    assert!(world.bpffs.join(&own).exists());
    for (from, in_cgroup, addr) in [
        ("out", false, format!("{NODE_IP}:30080")),
        ("node", true, format!("{CLUSTER_IP}:80")),
    ] {
        let answer = world.client(from, in_cgroup, &format!("tcp {addr}"));
        assert!(answer.starts_with("local"), "{from}: {answer}");
    }
    let counters = plane.counters().unwrap();
    let forwarded = counters.iter().find(|(v, _)| v.label() == "forward");
    assert_ne!(
        forwarded.map(|(_, count)| *count),
        Some(0),
        "by the new one"
    );
}
