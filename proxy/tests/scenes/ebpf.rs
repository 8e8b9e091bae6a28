//! Scenes with eBPF mode on the node. A process of the node is one in the cgroup that the socket hooks serve, since that is
//! how this mode sees it; packets of pods and of the world are the same as for the other mode.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, sendto,
    setsockopt, socket, sockopt,
};
use seaway_kernel::{NetNs, Spawn, cgroup};
use seaway_model::{Change, Desired, NodeContext, Packet};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane};
use tokio::runtime::Runtime;

use crate::wire::{self, Evidence};
use crate::{ByPort, runtime};

/// Set for the process that sends; its value is what to send.
const TASK: &str = "SEAWAY_TEST_SCENE";
const PARENT: &str = "/sys/fs/bpf/seaway-scenes";

/// The data plane of a node; gone when dropped.
pub(crate) struct Programmed {
    id: String,
    config: EbpfConfig,
    node: NetNs,
    plane: EbpfDataplane,
    /// What the plane has begun goes on there.
    runtime: Runtime,
}

impl Programmed {
    /// Loads the programs on a node as the scenes have it.
    pub(crate) fn new(context: &NodeContext, node: &NetNs) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("swscene{}-{number}", std::process::id());
        let root = cgroup::mount_point().unwrap().join(&id);
        cgroup::create(&root).unwrap();
        let config = EbpfConfig {
            bpffs_root: PathBuf::from(PARENT).join(&id),
            detect_local: context.detect_local.clone(),
            node_port_addresses: context.node_port_addresses.clone(),
            masquerade_all: context.masquerade_all,
            ..EbpfConfig::new("n1", root)
        };
        let mut plane = {
            let _inside = node.enter().unwrap();
            EbpfDataplane::new(config.clone()).unwrap()
        };
        let runtime = runtime();
        runtime.block_on(plane.observe()).unwrap();
        Self {
            runtime,
            id,
            config,
            node: node.clone(),
            plane,
        }
    }

    /// Programs the Services of a scene in place of those that are there.
    pub(crate) fn program(&mut self, desired: &Desired) {
        let plan = self.plane.plan(desired, &Change::Full);
        self.runtime.block_on(self.plane.apply(plan)).unwrap();
    }

    /// Sends a packet from each of these ports as a process of the node does; which of them it was told are refused.
    pub(crate) fn send(&self, packet: &Packet, ports: &[u16]) -> ByPort {
        let out = std::env::temp_dir().join(&self.id);
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let task = format!(
            "{} {} {} {}",
            packet.protocol,
            packet.source,
            packet.destination,
            ports.join(" ")
        );
        let mut child = Spawn::new(std::env::current_exe().unwrap())
            .args(["--exact", "node_process", "--nocapture"])
            .env(TASK, task)
            .netns(&self.node)
            .cgroup(&self.config.cgroup_root)
            .stdout(&out)
            .stderr(&out)
            .start()
            .unwrap();
        let status = child.wait().unwrap();
        let text = fs::read_to_string(&out).unwrap();
        fs::remove_file(&out).unwrap();
        assert!(status.success(), "{text}");
        let refused = text
            .lines()
            .filter_map(|line| line.strip_prefix("REFUSED "));
        refused
            .map(|port| (port.parse().unwrap(), Evidence::Refused))
            .collect()
    }
}

impl Drop for Programmed {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.plane.cleanup());
        let _ = fs::remove_dir(&self.config.bpffs_root);
        let _ = fs::remove_dir(PARENT);
        let root = &self.config.cgroup_root;
        let _ = cgroup::kill(root);
        let _ = cgroup::wait_empty(root, Duration::from_secs(2));
        let _ = cgroup::delete(root);
    }
}

/// The body of the test `node_process`, which is one only when the environment says so.
pub(crate) fn node_process() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let mut words = task.split(' ');
    let mut word = || words.next().unwrap();
    let tcp = word() == "tcp";
    let source: IpAddr = word().parse().unwrap();
    let destination: SocketAddr = word().parse().unwrap();
    println!();
    for port in words {
        let port: u16 = port.parse().unwrap();
        match send(tcp, SocketAddr::new(source, port), destination) {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::ETIMEDOUT) => {}
            Err(Errno::ECONNREFUSED) => println!("REFUSED {port}"),
            Err(error) => panic!("{task}: {error}"),
        }
    }
    // A SYN to an address of the node itself is answered by then, and nothing is sent again.
    thread::sleep(Duration::from_millis(5));
}

fn send(tcp: bool, source: SocketAddr, destination: SocketAddr) -> nix::Result<()> {
    let (family, kind) = (
        if source.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        },
        if tcp {
            SockType::Stream
        } else {
            SockType::Datagram
        },
    );
    let socket = socket(family, kind, SockFlag::SOCK_NONBLOCK, None)?;
    // The node may use addresses that it does not have, as those of load balancers. (The option is of both families.)
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    let destination = SockaddrStorage::from(destination);
    if tcp {
        return connect(socket.as_raw_fd(), &destination);
    }
    let payload = wire::payload(source.port());
    sendto(
        socket.as_raw_fd(),
        &payload,
        &destination,
        MsgFlags::empty(),
    )
    .map(drop)
}
