//! The iptables data plane against the real programs and kernel, in namespaces of the test's own, in both variants.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use seaway_kernel::capabilities::{IptablesProgram, IptablesVariant};
use seaway_kernel::{Capabilities, NetNs};
use seaway_model::{
    Change, Desired, Endpoint, EndpointSlice, Family, InputEvent, Inputs, ObjectKey, Protocol,
    Service, ServicePort, SlicePort, TrafficPolicy, derive_all, testing,
};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::iptables::{IptablesConfig, IptablesDataplane};

const VARIANTS: [IptablesVariant; 2] = [IptablesVariant::NfTables, IptablesVariant::Legacy];

/// Runs `test` for each variant, in a namespace of its own.
fn in_each_variant<F, Fut>(test: F)
where
    F: Fn(Machine) -> Fut + Send + Sync,
    Fut: Future<Output = ()>,
{
    for variant in VARIANTS {
        let netns = NetNs::anonymous().unwrap();
        netns
            .run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(test(Machine { variant }));
            })
            .unwrap();
    }
}

/// A machine whose plain `iptables` is of one variant.
#[derive(Clone, Copy)]
struct Machine {
    variant: IptablesVariant,
}

impl Machine {
    fn dataplane(self) -> IptablesDataplane {
        let program = IptablesProgram {
            version: "1.8.9".into(),
            variant: self.variant,
        };
        let capabilities = Capabilities {
            kernel: (6, 1),
            iptables: Some(program.clone()),
            ip6tables: Some(program),
            cgroup2: None,
            bpffs: None,
            tcx: false,
            vxlan: false,
        };
        let cidr = |text: &str| text.parse().unwrap();
        let config = IptablesConfig {
            cluster_cidrs: vec![cidr("10.244.0.0/16"), cidr("fd00:10:244::/56")],
            ipv6: true,
            ..IptablesConfig::default()
        };
        IptablesDataplane::new(&config, &capabilities)
    }

    /// A data plane that has `desired` in the kernel.
    async fn with(self, desired: &Desired) -> IptablesDataplane {
        let mut dataplane = self.dataplane();
        dataplane.observe().await.unwrap();
        let plan = dataplane.plan(desired, &Change::Full);
        let text = plan.to_string();
        if let Err(error) = dataplane.apply(plan).await {
            panic!("{error}\n{text}");
        }
        dataplane
    }

    fn name(self, family: Family) -> &'static str {
        match (family, self.variant) {
            (Family::V4, IptablesVariant::NfTables) => "iptables-nft",
            (Family::V4, IptablesVariant::Legacy) => "iptables-legacy",
            (Family::V6, IptablesVariant::NfTables) => "ip6tables-nft",
            (Family::V6, IptablesVariant::Legacy) => "ip6tables-legacy",
        }
    }

    /// The rules of a family, without what differs from run to run.
    fn saved(self, family: Family) -> Vec<String> {
        let text = run(&format!("{}-save", self.name(family)), &[], "");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().unwrap_or(line).to_owned())
            .collect()
    }

    fn iptables(self, args: &str) {
        let args: Vec<_> = args.split(' ').collect();
        run(self.name(Family::V4), &args, "");
    }

    fn restore(self, family: Family, text: &str) {
        run(
            &format!("{}-restore", self.name(family)),
            &["--noflush"],
            text,
        );
    }
}

fn run(program: &str, args: &[&str], stdin: &str) -> String {
    let mut child = std::process::Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Some clusters of the generator; the seed is fixed, so that a failure can be looked at.
fn clusters(count: usize) -> Vec<Desired> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| {
            let inputs = testing::inputs().new_tree(&mut runner).unwrap().current();
            derive_all(&inputs, testing::NODE).0
        })
        .collect()
}

#[test]
fn the_kernel_takes_every_rule_and_gives_it_back_as_written() {
    let clusters = clusters(12);
    in_each_variant(|machine| {
        let clusters = clusters.clone();
        async move {
            for desired in &clusters {
                machine.with(desired).await;
                // A restart: what is read back is what is wanted, nothing is to be done.
                let mut restarted = machine.dataplane();
                restarted.observe().await.unwrap();
                let plan = restarted.plan(desired, &Change::Full);
                assert_eq!(
                    plan.to_string(),
                    "# ipv4: nothing to do\n# ipv6: nothing to do\n"
                );
            }
        }
    });
}

#[test]
fn cleanup_leaves_exactly_what_was_there_before() {
    const FOREIGN: &str = "*nat
:KUBE-MARK - [0:0]
:SEAWAY-EGRESS - [0:0]
-A PREROUTING -m comment --comment \"not -j SEAWAY-SERVICES\" -j KUBE-MARK
-A KUBE-MARK -j MARK --set-xmark 0x4000/0x4000
-A POSTROUTING -j SEAWAY-EGRESS
-A SEAWAY-EGRESS ! -o lo -j MASQUERADE
COMMIT
*filter
-A FORWARD -i eth0 -j DROP
COMMIT
";
    let clusters = clusters(2);
    in_each_variant(|machine| {
        let clusters = clusters.clone();
        async move {
            for family in [Family::V4, Family::V6] {
                machine.restore(family, FOREIGN);
            }
            let before = [Family::V4, Family::V6].map(|family| machine.saved(family));
            for desired in &clusters {
                let mut dataplane = machine.with(desired).await;
                machine.iptables("-t nat -A KUBE-MARK -j SEAWAY-NODEPORTS");
                // By hand, in a place and a form that we never write.
                machine.iptables("-t nat -A INPUT -s 192.0.2.1 -i eth7 -g SEAWAY-NODEPORTS");
                let removed = dataplane.cleanup().await.unwrap();
                assert_eq!(removed.len(), 2, "{removed:?}");
                let after = [Family::V4, Family::V6].map(|family| machine.saved(family));
                assert_eq!(after, before);
                assert_eq!(dataplane.cleanup().await.unwrap(), Vec::<String>::new());
            }
        }
    });
}

#[test]
fn rules_in_the_other_variant_are_taken_over() {
    let desired = service_with(&[2, 3]);
    in_each_variant(|machine| {
        let desired = desired.clone();
        async move {
            let [other] = VARIANTS
                .into_iter()
                .filter(|v| *v != machine.variant)
                .map(|variant| Machine { variant })
                .collect::<Vec<_>>()[..]
            else {
                panic!("two variants")
            };
            other.with(&desired).await;
            // The kubelet says that this node uses the first variant.
            let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
            machine.restore(Family::V4, hint);
            machine.with(&desired).await;
            let ours = |machine: Machine| {
                let lines = machine.saved(Family::V4);
                lines.iter().filter(|l| l.starts_with(":SEAWAY-")).count()
            };
            assert!(ours(machine) > 0);
            assert_eq!(ours(other), 0);
        }
    });
}

/// One Service of both families with TCP port 80 → 8080 and node port 30080, and one endpoint for each of `hosts`.
fn service_with(hosts: &[u8]) -> Desired {
    let mut inputs = Inputs::default();
    for event in service_events("web", 10, hosts) {
        inputs.apply(event);
    }
    for event in service_events("other", 11, &[9]) {
        inputs.apply(event);
    }
    derive_all(&inputs, testing::NODE).0
}

fn service_events(name: &str, last: u8, hosts: &[u8]) -> [InputEvent; 3] {
    let key = ObjectKey::new("default", name);
    let service = Service {
        key: key.clone(),
        cluster_ips: vec![
            IpAddr::from([10, 96, 0, last]),
            IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(last)]),
        ],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30_070 + u16::from(last)),
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        load_balancer_ips: Vec::new(),
        external_ips: Vec::new(),
        source_ranges: Vec::new(),
        health_check_node_port: None,
    };
    let slice = |family, suffix: &str| {
        let slice = EndpointSlice {
            key: ObjectKey::new("default", format!("{name}-{suffix}")),
            service: name.into(),
            family,
            ports: vec![SlicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port: 8080,
            }],
            endpoints: hosts
                .iter()
                .map(|host| Endpoint {
                    addresses: vec![pod(family, *host)],
                    ready: true,
                    serving: true,
                    terminating: false,
                    node: Some(testing::NODE.into()),
                    zone_hints: Vec::new(),
                    node_hints: Vec::new(),
                })
                .collect(),
        };
        InputEvent::Slice(slice.key.clone(), Some(slice))
    };
    [
        InputEvent::Service(key, Some(service)),
        slice(Family::V4, "v4"),
        slice(Family::V6, "v6"),
    ]
}

fn pod(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 244, 1, host]),
        Family::V6 => IpAddr::from([0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(host)]),
    }
}

fn web() -> Change {
    Change::Services(BTreeSet::from([ObjectKey::new("default", "web")]))
}

#[test]
fn a_change_of_one_endpoint_touches_one_chain() {
    in_each_variant(|machine| async move {
        let mut dataplane = machine.with(&service_with(&[2, 3])).await;
        let before = by_chain(&machine.saved(Family::V4));
        let plan = dataplane.plan(&service_with(&[2, 4]), &web());
        let report = dataplane.apply(plan).await.unwrap();
        assert_eq!((report.operations, report.deletions), (6, 0));
        let after = by_chain(&machine.saved(Family::V4));
        let changed: Vec<_> = after
            .iter()
            .filter(|(chain, rules)| before.get(*chain) != Some(*rules))
            .map(|(chain, _)| chain.clone())
            .collect();
        assert_eq!(changed.len(), 1, "{changed:?}");
        assert!(changed[0].starts_with("SEAWAY-SVC-"), "{changed:?}");
        assert_eq!(before.len(), after.len());
    });
}

fn by_chain(saved: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in saved {
        if let Some(rest) = line.strip_prefix("-A ") {
            let chain = rest.split(' ').next().unwrap_or_default();
            chains
                .entry(chain.to_owned())
                .or_default()
                .push(line.clone());
        }
    }
    chains
}

#[test]
fn a_strangers_edit_is_noticed_and_repaired() {
    in_each_variant(|machine| async move {
        let desired = service_with(&[2, 3]);
        let mut dataplane = machine.with(&desired).await;
        let edits = [
            "-t nat -F",
            "-t nat -D OUTPUT 1",
            "-t filter -F SEAWAY-FILTER",
            "-t nat -A SEAWAY-SERVICES -j ACCEPT",
            "-t nat -N SEAWAY-SVC-UNKNOWN",
        ];
        for edit in edits {
            machine.iptables(edit);
            let reason = tokio::time::timeout(Duration::from_secs(10), dataplane.watch())
                .await
                .unwrap_or_else(|_| panic!("not noticed: {edit}"))
                .unwrap();
            assert!(reason.starts_with("ipv4: chain "), "{reason}");
            dataplane.observe().await.unwrap();
            let plan = dataplane.plan(&desired, &Change::Full);
            dataplane.apply(plan).await.unwrap();
            let plan = dataplane.plan(&desired, &Change::Full);
            assert!(plan.to_string().starts_with("# ipv4: nothing"), "{plan}");
        }
        machine.iptables("-t nat -A OUTPUT -p udp -j ACCEPT");
        let quiet = tokio::time::timeout(Duration::from_millis(2500), dataplane.watch()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    });
}

#[test]
fn a_refused_transaction_is_explained_and_changes_nothing() {
    in_each_variant(|machine| async move {
        let mut dataplane = machine.with(&service_with(&[2, 3])).await;
        let plan = dataplane.plan(&service_with(&[]), &web());
        // Somebody takes the table away under a plan that deletes a jump which was there.
        machine.iptables("-t nat -F");
        machine.iptables("-t nat -X");
        dataplane.apply(plan).await.unwrap();
        let mut again = machine.with(&service_with(&[2, 3])).await;
        machine.iptables("-t nat -F PREROUTING");
        let cleanup = again.plan(&Desired::default(), &Change::Full);
        // The fixed chains stay wanted, so this plan only removes Services, and passes.
        again.apply(cleanup).await.unwrap();
    });
}

/// Addresses on loopback, so that one namespace is node, pods and client at once.
fn addresses() {
    let ip = |text: &str| run("ip", &text.split(' ').collect::<Vec<_>>(), "");
    ip("addr add 192.168.1.1/32 dev lo");
    ip("-6 addr add fd01::1/128 dev lo");
    for family in [Family::V4, Family::V6] {
        for host in [2, 3] {
            ip(&format!("addr add {} dev lo", pod(family, host)));
        }
    }
    ip("route add 10.96.0.0/16 dev lo src 192.168.1.1");
    ip("-6 route add fd00:10:96::/112 dev lo src fd01::1");
}

/// Answers each connection with its own address and that of its peer.
fn serve(addr: SocketAddr) {
    let listener = TcpListener::bind(addr).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap();
            write!(stream, "{addr} {peer}").unwrap();
        }
    });
}

/// A connection that was answered.
#[derive(Debug)]
struct Answer {
    server: SocketAddr,
    /// Whom the server saw.
    peer: SocketAddr,
    /// Who asked.
    client: SocketAddr,
}

fn ask(source: Option<IpAddr>, destination: SocketAddr) -> std::io::Result<Answer> {
    let mut stream = connect(source, destination)?;
    let client = stream.local_addr()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (server, peer) = answer.split_once(' ').unwrap();
    Ok(Answer {
        server: server.parse().unwrap(),
        peer: peer.parse().unwrap(),
        client,
    })
}

fn connect(source: Option<IpAddr>, destination: SocketAddr) -> std::io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect_timeout(&destination, Duration::from_secs(5));
    };
    let family = match source {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let source = SockaddrStorage::from(SocketAddr::new(source, 0));
    bind(fd.as_raw_fd(), &source)?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(destination))?;
    Ok(TcpStream::from(fd))
}

#[test]
fn packets_do_what_the_rules_say() {
    in_each_variant(|machine| async move {
        addresses();
        for family in [Family::V4, Family::V6] {
            for host in [2, 3] {
                serve(SocketAddr::new(pod(family, host), 8080));
            }
        }
        let loopback = "127.0.0.1:30080".parse().unwrap();
        serve(loopback);
        let mut dataplane = machine.with(&service_with(&[2, 3])).await;
        let cluster_ips = ["10.96.0.10:80", "[fd00:10:96::a]:80"].map(|a| a.parse().unwrap());
        let node_ports = ["192.168.1.1:30080", "[fd01::1]:30080"].map(|a| a.parse().unwrap());
        for destination in cluster_ips.into_iter().chain(node_ports) {
            let servers: BTreeSet<_> = (0..40)
                .map(|_| ask(None, destination).unwrap().server)
                .collect();
            assert_eq!(servers.len(), 2, "{destination}: {servers:?}");
        }
        // Loopback is not a node port: what listens there is reached.
        assert_eq!(ask(None, loopback).unwrap().server, loopback);

        // A pod keeps its address. One that reaches itself sees another port at least: here all addresses are on one
        // link, so that masquerade finds the same one.
        let plan = dataplane.plan(&service_with(&[2]), &web());
        dataplane.apply(plan).await.unwrap();
        for (family, cluster_ip) in [Family::V4, Family::V6].into_iter().zip(cluster_ips) {
            let other = ask(Some(pod(family, 3)), cluster_ip).unwrap();
            assert_eq!(other.peer, other.client);
            let hairpin = ask(Some(pod(family, 2)), cluster_ip).unwrap();
            assert_eq!(hairpin.server.ip(), hairpin.client.ip());
            assert_ne!(hairpin.peer, hairpin.client);
        }

        // Refused at once without endpoints, on every kind of frontend; and served again.
        let plan = dataplane.plan(&service_with(&[]), &web());
        dataplane.apply(plan).await.unwrap();
        for destination in cluster_ips.into_iter().chain(node_ports) {
            let started = Instant::now();
            let refused = ask(None, destination).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            assert!(started.elapsed() < Duration::from_millis(500));
        }
        let plan = dataplane.plan(&service_with(&[3]), &web());
        dataplane.apply(plan).await.unwrap();
        for (family, cluster_ip) in [Family::V4, Family::V6].into_iter().zip(cluster_ips) {
            assert_eq!(ask(None, cluster_ip).unwrap().server.ip(), pod(family, 3));
        }
    });
}

#[test]
fn dump_and_plan_show_rules_as_text() {
    in_each_variant(|machine| async move {
        let desired = service_with(&[2, 3]);
        let mut dataplane = machine.with(&desired).await;
        let dump = dataplane.dump().await.unwrap();
        assert!(dump.contains(", as wanted\n"), "{dump}");
        assert!(dump.contains("--comment \"default/web/tcp\""), "{dump}");
        machine.iptables("-t nat -F OUTPUT");
        let dump = dataplane.dump().await.unwrap();
        assert!(dump.contains("not as wanted: chain OUTPUT"), "{dump}");
        let found = machine.dataplane().dump().await.unwrap();
        assert!(found.contains(", as found\n"), "{found}");
    });
}
