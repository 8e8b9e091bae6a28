//! The overlay of one node in a cluster of many: how long until it has the way to every other, what one changed Node
//! costs then, and memory. The other nodes are Nodes in manifests and nothing else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use seaway_kernel::{NetNs, Netlink, Scope, Spawn, VethOptions};
use serde_json::json;

use super::one_node::usage::resident_mb;
use super::{Figures, Stage, Unit};

/// Where the daemon has its metrics, in the node's namespace.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10260);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Flags of the scenario.
#[derive(Debug, Clone, Args)]
pub struct MeshArgs {
    /// Nodes of the cluster besides the one that is measured
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..60_000))]
    pub nodes: u32,
}

/// Runs the scenario.
pub async fn run(stage: &Stage, args: &MeshArgs) -> Result<Figures> {
    let mut figures = Figures::new("mesh");
    let count = args.nodes.to_string();
    let labels = [("nodes", count.as_str())];
    let rounds = stage.times(5, 2);
    let mut took = Vec::new();
    let mut again = Vec::new();
    for round in 1..=rounds {
        stage.say(&format!("mesh: {count} nodes, start {round} of {rounds}"));
        let node = Node::new(args.nodes).await?;
        let started = Instant::now();
        let daemon = node.start()?;
        node.wait(|now| now.peers == f64::from(args.nodes))?;
        took.push(started.elapsed().as_secs_f64());
        if round == rounds {
            changes(stage, &node, &daemon, &mut figures, &labels)?;
        }
        drop(daemon);
        // One that finds everything in place.
        let started = Instant::now();
        let _daemon = node.start()?;
        node.wait(|now| now.peers == f64::from(args.nodes))?;
        again.push(started.elapsed().as_secs_f64());
    }
    figures.median(&labels, "converged", Unit::Seconds, &took);
    figures.median(&labels, "restart", Unit::Seconds, &again);
    Ok(figures)
}

/// One Node after the other gets another address.
fn changes(
    stage: &Stage,
    node: &Node,
    daemon: &Daemon,
    figures: &mut Figures,
    labels: &[(&'static str, &str)],
) -> Result<()> {
    let (rss, _) = resident_mb(daemon.0.id())?;
    figures.value(labels, "rss", Unit::Megabytes, rss);
    let changes = stage.times(50, 5);
    stage.say(&format!("mesh: {changes} changes, one by one"));
    let mut samples = Vec::new();
    for change in 0..changes {
        let number = change as u32 % node.count;
        let before = node.scrape()?;
        node.declare(number, 2)?;
        let after = node.wait(|now| now.operations > before.operations)?;
        // Its route and its neighbour, and nobody else's.
        let operations = after.operations - before.operations;
        ensure!(operations <= 4.0, "one change took {operations} operations");
        let comparisons = after.comparisons - before.comparisons;
        samples.push((after.seconds - before.seconds) / comparisons * 1000.0);
        node.declare(number, 1)?;
        node.wait(|now| now.operations > after.operations)?;
    }
    figures.percentiles(labels, "change", Unit::Milliseconds, &samples);
    let (_, peak) = resident_mb(daemon.0.id())?;
    figures.value(labels, "peak_rss", Unit::Megabytes, peak);
    Ok(())
}

/// What the daemon says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scrape {
    peers: f64,
    operations: f64,
    /// Time of all comparisons with their changes, and how many there were.
    seconds: f64,
    comparisons: f64,
}

impl Scrape {
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some(Self {
            peers: value("seaway_overlay_peers ")?,
            operations: value("seaway_overlay_kernel_operations_total ")?,
            seconds: value("seaway_overlay_sync_seconds_sum ")?,
            comparisons: value("seaway_overlay_sync_seconds_count ")?,
        })
    }
}

/// The node that is measured: a namespace with an uplink that leads nowhere, and Nodes in a directory.
struct Node {
    netns: NetNs,
    /// The far end of the uplink.
    _far: NetNs,
    files: Files,
    count: u32,
}

impl Node {
    async fn new(count: u32) -> Result<Self> {
        let (netns, far) = (NetNs::anonymous()?, NetNs::anonymous()?);
        let netlink = Netlink::in_namespace(&netns)?;
        let options = VethOptions {
            peer_netns: Some(&far),
            up: true,
            ..VethOptions::default()
        };
        netlink.add_veth("eth0", "eth0", options).await?;
        let index = netlink.link("eth0").await?.context("no uplink")?.index;
        netlink
            .add_address(index, "172.16.0.1/12".parse()?, Scope::Global)
            .await?;
        let far_netlink = Netlink::in_namespace(&far)?;
        let far_index = far_netlink.link("eth0").await?.context("no uplink")?.index;
        far_netlink.set_up(far_index).await?;
        let node = Self {
            netns,
            _far: far,
            files: Files::new()?,
            count,
        };
        node.write(
            "own",
            Ipv4Addr::new(172, 16, 0, 1),
            Ipv4Addr::new(10, 0, 0, 0),
        )?;
        for number in 0..count {
            node.declare(number, 1)?;
        }
        Ok(node)
    }

    /// Puts the Node of that number among the manifests, at one of its addresses.
    fn declare(&self, number: u32, which: u32) -> Result<()> {
        let address = u32::from(Ipv4Addr::new(172, 16, 0, 0)) + which * 0x1_0000 + number + 2;
        let pods = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number + 1) * 256;
        self.write(&format!("n{number:05}"), address.into(), pods.into())
    }

    fn write(&self, name: &str, address: Ipv4Addr, pods: Ipv4Addr) -> Result<()> {
        let cidr = format!("{pods}/24");
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
            "status": { "addresses": [{ "type": "InternalIP", "address": address.to_string() }] },
        });
        let hidden = self.files.0.join("hidden");
        fs::write(&hidden, object.to_string()).context("write a manifest")?;
        let place = self.files.0.join("manifests").join(format!("{name}.json"));
        fs::rename(hidden, place).context("put a manifest in place")
    }

    fn start(&self) -> Result<Daemon> {
        let place = |flag: &str, name: &str| format!("--{flag}={}", self.path(name).display());
        let child = Spawn::new(seaway_lab::topology::binaries()?.join("seaway-overlay"))
            .args(["run", "--node-name=own", "--cluster-cidr=10.0.0.0/8"])
            .args([
                place("manifests", "manifests"),
                place("run-dir", "run"),
                place("state-dir", "state"),
                place("cni-conf-dir", "conf"),
                place("cni-bin-dir", "bin"),
            ])
            .netns(&self.netns)
            .stderr(self.path("log"))
            .start()?;
        Ok(Daemon(child))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.0.join(name)
    }

    fn wait(&self, wanted: impl Fn(Scrape) -> bool) -> Result<Scrape> {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Ok(now) = self.scrape()
                && wanted(now)
            {
                return Ok(now);
            }
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            ensure!(
                Instant::now() < limit,
                "the overlay did not get so far:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn scrape(&self) -> Result<Scrape> {
        let mut stream = self.netns.run(|| TcpStream::connect(METRICS))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Scrape::parse(&answer).context("the overlay's metrics lack what is measured")
    }
}

/// Killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The node's directory, removed when dropped.
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self> {
        let name = format!("seaway-mesh-{}", std::process::id());
        let files = Self(std::env::temp_dir().join(name));
        fs::create_dir(&files.0).with_context(|| format!("create {}", files.0.display()))?;
        for part in ["manifests", "bin"] {
            fs::create_dir(files.0.join(part)).context("create a directory")?;
        }
        // The daemon only looks whether a plugin is installed.
        fs::write(plugin(&files.0), "").context("write a stand-in of the plugin")?;
        Ok(files)
    }
}

fn plugin(files: &Path) -> PathBuf {
    files.join("bin").join("seaway-cni")
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = "# TYPE seaway_overlay_peers gauge\nseaway_overlay_peers 7\n\
                    seaway_overlay_kernel_operations_total 12\nseaway_overlay_sync_seconds_sum 0.5\n\
                    seaway_overlay_sync_seconds_count 4\n";
        let scrape = Scrape {
            peers: 7.0,
            operations: 12.0,
            seconds: 0.5,
            comparisons: 4.0,
        };
        assert_eq!(Scrape::parse(text), Some(scrape));
        assert_eq!(Scrape::parse(""), None);
    }
}
