//! Two nodes joined by a wire, their daemons, and pods made by the plugin's own code.

pub(crate) mod wire;

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seaway_cni::node::NodeFile;
use seaway_cni::personality::Personality;
use seaway_kernel::{Command, NetNs, Netlink, Offload, Scope, Spawn, VethOptions};
use seaway_overlay::admin::Status;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// How long anything may take on a busy machine. Less than the time between two audits of the daemon: what is mended
/// within it was heard of. (The bench measures how soon.)
const PATIENCE: Duration = Duration::from_secs(25);

/// Where a daemon answers questions, in its namespace.
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 10260);

/// What a pair of nodes is like.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Addresses of the nodes on the wire, in the order in which their Nodes have them; `N` is the number of the node.
    pub(crate) addresses: Vec<&'static str>,
    pub(crate) pod_cidrs: Vec<&'static str>,
    pub(crate) flags: Vec<&'static str>,
    /// Packets on the wire are carried by hand.
    pub(crate) wire: Option<wire::Faults>,
}

/// IPv4, and nothing special.
pub(crate) const V4: &str = "192.168.100.N/24";
pub(crate) const V6: &str = "fd00:64::N/64";
pub(crate) const PODS_V4: &str = "10.244.N.0/24";
pub(crate) const PODS_V6: &str = "fd01:N::/64";

impl Default for Layout {
    fn default() -> Self {
        Self {
            addresses: vec![V4],
            pod_cidrs: vec![PODS_V4],
            flags: Vec::new(),
            wire: None,
        }
    }
}

impl Layout {
    /// Pods of both families over such addresses of the nodes.
    pub(crate) fn of_both_families(addresses: &[&'static str]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            pod_cidrs: vec![PODS_V4, PODS_V6],
            ..Self::default()
        }
    }
}

fn numbered(texts: &[&str], number: usize) -> Vec<String> {
    let number = number.to_string();
    texts
        .iter()
        .map(|text| text.replace('N', &number))
        .collect()
}

fn without_prefix(network: &str) -> String {
    network.split('/').next().unwrap().to_owned()
}

/// Nodes n1 and n2, each with a daemon that follows the same manifests.
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    dir: TempDir,
    pub(crate) layout: Layout,
    /// Stops when dropped.
    _wire: Option<wire::Carrier>,
}

pub(crate) struct Node {
    pub(crate) netns: NetNs,
    pub(crate) daemon: Daemon,
    number: usize,
    dir: PathBuf,
    pub(crate) flags: Vec<String>,
}

/// Killed when dropped.
pub(crate) struct Daemon(Option<Child>);

impl Daemon {
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Daemon {
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.0.as_ref().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Pair {
    pub(crate) async fn start() -> Self {
        Self::with(Layout::default()).await
    }

    pub(crate) async fn with(layout: Layout) -> Self {
        let mut pair = Self::idle(layout).await;
        for number in [1, 2] {
            pair.declare_own(number);
        }
        for node in &mut pair.nodes {
            node.start();
        }
        for node in &pair.nodes {
            node.wait(|status| status.in_sync && status.peers.len() == 1)
                .await;
        }
        pair
    }

    /// Without Nodes, and without daemons.
    pub(crate) async fn idle(layout: Layout) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        let nodes = [1, 2].map(|number| Node::new(number, &dir, &layout));
        let mut carrier = None;
        match layout.wire {
            None => join(&nodes[0].netns, &nodes[1].netns, "eth0").await,
            Some(faults) => {
                let middle = NetNs::anonymous().unwrap();
                for (node, end) in nodes.iter().zip(["left", "right"]) {
                    join(&node.netns, &middle, end).await;
                    let offload = node.netns.run(|| Offload::open().unwrap()).unwrap();
                    offload.set_checksum("eth0", faults.checksums).unwrap();
                }
                carrier = Some(wire::Carrier::start(middle, faults));
            }
        }
        for node in &nodes {
            let netlink = node.netlink();
            let link = netlink.link("eth0").await.unwrap().unwrap();
            netlink.set_up(link.index).await.unwrap();
            for network in numbered(&layout.addresses, node.number) {
                let network = network.parse().unwrap();
                netlink
                    .add_address(link.index, network, Scope::Global)
                    .await
                    .unwrap();
            }
        }
        Self {
            nodes,
            dir,
            layout,
            _wire: carrier,
        }
    }

    /// Puts the Node of one of the two among the manifests, as the layout has it.
    pub(crate) fn declare_own(&self, number: usize) {
        let addresses = numbered(&self.layout.addresses, number);
        let addresses: Vec<_> = addresses.iter().map(|a| without_prefix(a)).collect();
        let cidrs = numbered(&self.layout.pod_cidrs, number);
        self.declare_all(&format!("n{number}"), &addresses, &cidrs);
    }

    /// Puts a Node among the manifests.
    pub(crate) fn declare(&self, name: &str, address: &str, cidr: &str) {
        self.declare_all(name, &[address.to_owned()], &[cidr.to_owned()]);
    }

    pub(crate) fn declare_all(&self, name: &str, addresses: &[String], cidrs: &[String]) {
        let address = |address| json!({ "type": "InternalIP", "address": address });
        let addresses: Vec<_> = addresses.iter().map(address).collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs },
            "status": { "addresses": addresses },
        });
        let hidden = self.dir.path().join("manifest");
        fs::write(&hidden, object.to_string()).unwrap();
        fs::rename(hidden, self.manifest(name)).unwrap();
    }

    pub(crate) fn withdraw(&self, name: &str) {
        fs::remove_file(self.manifest(name)).unwrap();
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.dir
            .path()
            .join("manifests")
            .join(format!("{name}.json"))
    }
}

/// A veth pair: `eth0` here, `far` there, both up.
pub(crate) async fn join(here: &NetNs, there: &NetNs, far: &str) {
    let options = VethOptions {
        peer_netns: Some(there),
        up: true,
        ..VethOptions::default()
    };
    let near = Netlink::in_namespace(here).unwrap();
    near.add_veth("eth0", far, options).await.unwrap();
    let there = Netlink::in_namespace(there).unwrap();
    let link = there.link(far).await.unwrap().unwrap();
    there.set_up(link.index).await.unwrap();
}

impl Node {
    fn new(number: usize, dir: &TempDir, layout: &Layout) -> Self {
        let node = Self {
            netns: NetNs::anonymous().unwrap(),
            daemon: Daemon(None),
            number,
            dir: dir.path().join(format!("n{number}")),
            flags: layout.flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        // The daemon only looks whether a plugin is installed.
        fs::create_dir_all(node.dir.join("bin")).unwrap();
        fs::write(node.dir.join("bin/seaway-cni"), "").unwrap();
        node
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::in_namespace(&self.netns).unwrap()
    }

    pub(crate) fn args(&self) -> Vec<String> {
        let place = |flag: &str, name: &str| format!("--{flag}={}", self.dir.join(name).display());
        vec![
            place("run-dir", "run"),
            place("state-dir", "state"),
            place("cni-conf-dir", "conf"),
            place("cni-bin-dir", "bin"),
        ]
    }

    fn run_args(&self) -> Vec<String> {
        let manifests = self.dir.with_file_name("manifests");
        let mut args = vec![
            "run".to_owned(),
            format!("--manifests={}", manifests.display()),
            format!("--node-name=n{}", self.number),
            "--cluster-cidr=10.244.0.0/16,fd01::/16".to_owned(),
        ];
        args.extend(self.flags.iter().cloned());
        args.extend(self.args());
        args
    }

    pub(crate) fn start(&mut self) {
        let child = Spawn::new(env!("CARGO_BIN_EXE_seaway-overlay"))
            .args(self.run_args())
            .netns(&self.netns)
            .stderr(self.log_file())
            .start();
        self.daemon = Daemon(Some(child.unwrap()));
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What the daemons of this node said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs a subcommand in the node's namespace.
    pub(crate) async fn overlay(&self, args: &[String]) -> Result<String, String> {
        let path = std::env::var("PATH").unwrap();
        self.overlay_with(&path, args).await
    }

    /// The same with another `PATH`.
    pub(crate) async fn overlay_with(&self, path: &str, args: &[String]) -> Result<String, String> {
        Command::new(env!("CARGO_BIN_EXE_seaway-overlay"))
            .env("PATH", path)
            .args(args)
            .netns(&self.netns)
            .output()
            .await
            .map(|output| output.text())
            .map_err(|e| e.to_string())
    }

    /// Runs a second daemon, which must not start.
    pub(crate) async fn second_daemon(&self) -> String {
        self.overlay(&self.run_args()).await.unwrap_err()
    }

    async fn status(&self) -> Option<Status> {
        let inside = self.netns.enter().unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        drop(inside);
        let answer = seaway_overlay::status::ask_through(socket, ADMIN.into());
        answer.await.ok()
    }

    /// A value that the daemon counts.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let inside = self.netns.enter().unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        drop(inside);
        let mut stream = socket.connect(ADMIN.into()).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        answer.lines().find_map(value).unwrap()
    }

    /// Waits until the daemon's status is as wanted.
    pub(crate) async fn wait(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if let Some(status) = &status
                && wanted(status)
            {
                return status.clone();
            }
            assert!(
                Instant::now() < deadline,
                "n{}: {status:?}\n{}",
                self.number,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn node_file(&self) -> NodeFile {
        NodeFile::read(&self.dir.join("run")).unwrap()
    }

    pub(crate) fn conflist(&self) -> PathBuf {
        self.dir.join("conf/10-seaway.conflist")
    }

    /// Connects a pod with the config list that the daemon wrote.
    pub(crate) fn add_pod(&self) -> Pod {
        self.try_add_pod().unwrap()
    }

    /// The same where it may be refused.
    pub(crate) fn try_add_pod(&self) -> Result<Pod, seaway_cni::protocol::Error> {
        let list: Value = serde_json::from_slice(&fs::read(self.conflist()).unwrap()).unwrap();
        let mut config = list["plugins"][0].clone();
        config["name"] = list["name"].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        self.attach(&config)
    }

    /// Connects a pod with a config.
    pub(crate) fn attach(&self, config: &Value) -> Result<Pod, seaway_cni::protocol::Error> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sw-overlay-{}-{number}", std::process::id());
        let mut pod = Pod {
            netns: NetNs::create(&name).unwrap(),
            name,
            address: IpAddr::from([0, 0, 0, 0]),
            addresses: Vec::new(),
        };
        let environment = |variable: &str| match variable {
            "CNI_COMMAND" => Some("ADD".to_owned()),
            "CNI_CONTAINERID" => Some(pod.name.clone()),
            "CNI_NETNS" => Some(format!("/run/netns/{}", pod.name)),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_PATH" => Some(self.dir.join("bin").display().to_string()),
            _ => None,
        };
        let result = self.netns.run(|| {
            let config = config.to_string();
            seaway_cni::command::serve(Personality::Seaway, environment, config.as_bytes())
        });
        let result = result.unwrap().map_err(|(_, error)| error)?.unwrap();
        let addresses = result["ips"].as_array().unwrap().iter();
        pod.addresses = addresses
            .map(|ip| {
                without_prefix(ip["address"].as_str().unwrap())
                    .parse()
                    .unwrap()
            })
            .collect();
        pod.address = pod.addresses[0];
        Ok(pod)
    }

    /// Where the daemon keeps its files.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Where addresses of pods are kept.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }
}

/// A pod's namespace; deleted when dropped.
pub(crate) struct Pod {
    pub(crate) netns: NetNs,
    /// The first.
    pub(crate) address: IpAddr,
    pub(crate) addresses: Vec<IpAddr>,
    name: String,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.name);
    }
}

/// A datagram socket in a namespace.
pub(crate) fn socket(netns: &NetNs) -> UdpSocket {
    bound(netns, "0.0.0.0:0")
}

/// The same, at an address.
pub(crate) fn bound(netns: &NetNs, address: &str) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind(address).unwrap()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket
}

/// Sends so many bytes to a socket at an address; answers where they came from.
pub(crate) fn sent(
    from: &UdpSocket,
    to: &UdpSocket,
    address: IpAddr,
    bytes: usize,
) -> Option<IpAddr> {
    let port = to.local_addr().unwrap().port();
    from.send_to(&vec![7; bytes], (address, port)).unwrap();
    let mut buffer = vec![0; 70_000];
    match to.recv_from(&mut buffer) {
        Ok((length, source)) if length == bytes => Some(source.ip()),
        _ => None,
    }
}

/// One datagram of a size there and one back, between all addresses of two pods that are of one family.
pub(crate) fn echoes_in_all_families(from: &Pod, to: &Pod, bytes: usize) -> bool {
    assert_eq!(from.addresses.len(), to.addresses.len());
    from.addresses
        .iter()
        .zip(&to.addresses)
        .all(|(here, there)| {
            let any = if here.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let (client, server) = (bound(&from.netns, any), bound(&to.netns, any));
            // Room for the larger header of IPv6.
            let bytes = if here.is_ipv4() { bytes } else { bytes - 20 };
            sent(&client, &server, *there, bytes) == Some(*here)
                && sent(&server, &client, *here, bytes) == Some(*there)
        })
}

/// The same with the smallest ones, again and again until they arrive.
pub(crate) fn mended(from: &Pod, to: &Pod, node: &Node) {
    let started = Instant::now();
    while !echoes_soon(from, to) {
        assert!(started.elapsed() < PATIENCE, "{}", node.log());
    }
}

/// Whether a datagram arrives at once, there and back.
pub(crate) fn echoes_soon(from: &Pod, to: &Pod) -> bool {
    let any = if to.address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let ends = [from, to].map(|pod| bound(&pod.netns, any));
    for end in &ends {
        end.set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
    }
    let [client, server] = &ends;
    let [there, back] = [server, client].map(|end| end.local_addr().unwrap().port());
    // Without a route the sender may be told so at once.
    client.send_to(b"hello", (to.address, there)).is_ok()
        && server.recv(&mut [0; 9]).is_ok()
        && server.send_to(b"hello", (from.address, back)).is_ok()
        && client.recv(&mut [0; 9]).is_ok()
}
