//! Two nodes joined by a wire, their daemons, and pods made by the plugin's own code.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use seaway_cni::node::NodeFile;
use seaway_cni::personality::Personality;
use seaway_kernel::{Command, MacAddr, NetNs, Netlink, Scope, Spawn, VethOptions};
use seaway_overlay::admin::Status;
use serde_json::{Value, json};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes n1 and n2 at 192.168.100.1 and .2, each with a daemon that follows the same manifests.
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    dir: TempDir,
}

pub(crate) struct Node {
    pub(crate) netns: NetNs,
    pub(crate) daemon: Daemon,
    number: usize,
    dir: PathBuf,
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

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        let nodes = [1, 2].map(|number| Node::new(number, &dir));
        let wire = Netlink::in_namespace(&nodes[0].netns).unwrap();
        let options = VethOptions {
            peer_netns: Some(&nodes[1].netns),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            up: true,
            ..VethOptions::default()
        };
        wire.add_veth("eth0", "eth0", options).await.unwrap();
        for node in &nodes {
            let netlink = node.netlink();
            let link = netlink.link("eth0").await.unwrap().unwrap();
            netlink.set_up(link.index).await.unwrap();
            let network = format!("192.168.100.{}/24", node.number).parse().unwrap();
            netlink
                .add_address(link.index, network, Scope::Global)
                .await
                .unwrap();
        }
        let mut pair = Self { nodes, dir };
        for number in [1, 2] {
            pair.declare(
                &format!("n{number}"),
                &format!("192.168.100.{number}"),
                &format!("10.244.{number}.0/24"),
            );
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

    /// Puts a Node among the manifests.
    pub(crate) fn declare(&self, name: &str, address: &str, cidr: &str) {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] },
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

impl Node {
    fn new(number: usize, dir: &TempDir) -> Self {
        let node = Self {
            netns: NetNs::anonymous().unwrap(),
            daemon: Daemon(None),
            number,
            dir: dir.path().join(format!("n{number}")),
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
            "--cluster-cidr=10.244.0.0/16".to_owned(),
        ];
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
        Command::new(env!("CARGO_BIN_EXE_seaway-overlay"))
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
        let answer = seaway_overlay::status::ask_through(socket, ([127, 0, 0, 1], 10260).into());
        answer.await.ok()
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
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sw-overlay-{}-{number}", std::process::id());
        let mut pod = Pod {
            netns: NetNs::create(&name).unwrap(),
            name,
            address: IpAddr::from([0, 0, 0, 0]),
        };
        let list: Value = serde_json::from_slice(&fs::read(self.conflist()).unwrap()).unwrap();
        let mut config = list["plugins"][0].clone();
        config["name"] = list["name"].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        let environment = |variable: &str| match variable {
            "CNI_COMMAND" => Some("ADD".to_owned()),
            "CNI_CONTAINERID" => Some(pod.name.clone()),
            "CNI_NETNS" => Some(format!("/run/netns/{}", pod.name)),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            _ => None,
        };
        let result = self.netns.run(|| {
            let config = config.to_string();
            seaway_cni::command::serve(Personality::Seaway, environment, config.as_bytes())
        });
        let result = result.unwrap().unwrap().unwrap();
        let address = result["ips"][0]["address"].as_str().unwrap();
        pod.address = address.split('/').next().unwrap().parse().unwrap();
        pod
    }
}

/// A pod's namespace; deleted when dropped.
pub(crate) struct Pod {
    pub(crate) netns: NetNs,
    pub(crate) address: IpAddr,
    name: String,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.name);
    }
}

/// A datagram socket in a namespace.
pub(crate) fn socket(netns: &NetNs) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
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
