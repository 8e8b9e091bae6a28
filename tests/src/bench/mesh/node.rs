//! The node that is measured: a namespace with an uplink that leads nowhere, and Nodes that are objects and nothing else.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{TryStreamExt as _, stream};
use seaway_kernel::{Command, Event, Netlink, Scope, Spawn, VethOptions, Watch, WatchGroups};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::Scrape;
use super::source::{Kind, Source};
use crate::runtimes::{Namespace, Scratch};

/// Where the daemon has its metrics, in the node's namespace.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10260);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two questions to the daemon.
const PERIOD: Duration = Duration::from_millis(5);

/// Nodes that are declared at once.
const AT_ONCE: usize = 16;

/// The node, gone when dropped.
pub(super) struct Node {
    // In this order: a server has its files among those of the node.
    source: Source,
    space: Namespace,
    /// The far end of the uplink.
    _far: Namespace,
    files: Scratch,
    pub(super) count: u32,
}

impl Node {
    /// Makes it, with so many others.
    pub(super) async fn new(kind: Kind, count: u32) -> Result<Self> {
        let (space, far) = (Namespace::new("node")?, Namespace::new("far")?);
        let netlink = Netlink::in_namespace(space.netns())?;
        let options = VethOptions {
            peer_netns: Some(far.netns()),
            up: true,
            ..VethOptions::default()
        };
        netlink.add_veth("eth0", "eth0", options).await?;
        let index = netlink.link("eth0").await?.context("no uplink")?.index;
        netlink
            .add_address(index, "172.16.0.1/12".parse()?, Scope::Global)
            .await?;
        let far_netlink = Netlink::in_namespace(far.netns())?;
        let far_index = far_netlink.link("eth0").await?.context("no uplink")?.index;
        far_netlink.set_up(far_index).await?;
        let files = Scratch::new("mesh")?;
        let bin = files.path().join("bin");
        fs::create_dir(&bin).context("create a directory")?;
        // The daemon only looks whether a plugin is installed.
        fs::write(bin.join("seaway-cni"), "").context("write a stand-in of the plugin")?;
        let source = Source::new(kind, &files, space.netns()).await?;
        let own = (Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(10, 0, 0, 0));
        source.declare("own", own.0, own.1).await?;
        let node = Self {
            source,
            space,
            _far: far,
            files,
            count,
        };
        stream::iter((0..count).map(Ok))
            .try_for_each_concurrent(AT_ONCE, async |number| {
                let (name, address, pods) = other(number, 1);
                node.source.declare(&name, address, pods).await
            })
            .await?;
        Ok(node)
    }

    /// Gives the Node of that number one of its addresses.
    pub(super) async fn change(&self, number: u32, which: u32) -> Result<()> {
        let (name, address, pods) = other(number, which);
        self.source.change(&name, address, pods).await
    }

    /// The daemon, in the kernel as it is.
    pub(super) fn start(&self) -> Result<Daemon> {
        let child = Spawn::new(seaway_lab::topology::binaries()?.join("seaway-overlay"))
            .args(["run", "--node-name=own", "--cluster-cidr=10.0.0.0/8"])
            .arg(self.source.flag())
            .args(self.places())
            .netns(self.space.netns())
            .stderr(self.path("log"))
            .start()?;
        Ok(Daemon(child))
    }

    /// Nothing of the overlay is left in the kernel.
    pub(super) async fn clean(&self) -> Result<()> {
        Command::new(seaway_lab::topology::binaries()?.join("seaway-overlay"))
            .arg("cleanup")
            .args(self.places())
            .netns(self.space.netns())
            .output()
            .await?;
        Ok(())
    }

    fn places(&self) -> [String; 4] {
        let place = |flag: &str, name: &str| format!("--{flag}={}", self.path(name).display());
        [
            place("run-dir", "run"),
            place("state-dir", "state"),
            place("cni-conf-dir", "conf"),
            place("cni-bin-dir", "bin"),
        ]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Waits until the daemon says so.
    pub(super) async fn until(&self, wanted: impl Fn(Scrape) -> bool) -> Result<Scrape> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let now = self.scrape().await;
            match now {
                Ok(now) if wanted(now) => return Ok(now),
                _ if Instant::now() < limit => sleep(PERIOD).await,
                other => {
                    let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                    bail!("the overlay did not get so far: {other:?}\n{log}");
                }
            }
        }
    }

    /// What the daemon says of itself now.
    pub(super) async fn scrape(&self) -> Result<Scrape> {
        let socket = self.space.netns().run(TcpSocket::new_v4)??;
        let mut stream = socket.connect(METRICS).await?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        Scrape::parse(&answer).context("the overlay's metrics lack what is measured")
    }

    /// Listens to what becomes of routes.
    pub(super) fn listen(&self) -> Result<Ear> {
        let groups = WatchGroups {
            routes: true,
            ..WatchGroups::default()
        };
        Ok(Ear(Watch::in_namespace(self.space.netns(), groups)?))
    }
}

/// Name, address and pods of the Node of that number.
fn other(number: u32, which: u32) -> (String, Ipv4Addr, Ipv4Addr) {
    let address = u32::from(Ipv4Addr::new(172, 16, 0, 0)) + which * 0x1_0000 + number + 2;
    let pods = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number + 1) * 256;
    (format!("n{number:05}"), address.into(), pods.into())
}

/// Hears of routes.
pub(super) struct Ear(Watch);

impl Ear {
    /// When the kernel has the way to the pods of a Node at one of its addresses.
    pub(super) async fn way(&mut self, number: u32, which: u32) -> Result<()> {
        let (_, address, pods) = other(number, which);
        loop {
            let event = timeout(PATIENCE, self.0.next()).await?;
            if let Event::RouteSet(route) = event.context("events were lost")?
                && route.destination.ip() == IpAddr::V4(pods)
                && route
                    .encap
                    .is_some_and(|encap| encap.remote == IpAddr::V4(address))
            {
                return Ok(());
            }
        }
    }
}

/// Killed when dropped.
pub(super) struct Daemon(Child);

impl Daemon {
    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
