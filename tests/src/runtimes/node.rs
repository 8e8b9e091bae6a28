//! A node as the plugin finds it when the overlay has done its part, without the overlay.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use seaway_kernel::{Command, MacAddr, NetNs, Netlink, Route, Scope, VethOptions, sysctl};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The device of the overlay.
const LINK: &str = "seaway.vxlan";

/// The node and its neighbour, on the link between them.
pub const ADDRESSES: [[u8; 4]; 2] = [[192, 168, 78, 1], [192, 168, 78, 2]];

/// A named network namespace, deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    netns: NetNs,
}

impl Namespace {
    /// Creates one; `what` is for people who look.
    pub fn new(what: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sw-rt-{}-{number}-{what}", std::process::id());
        let netns = NetNs::create(&name)?;
        Ok(Self { name, netns })
    }

    /// Unique on the machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace itself.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// As runtimes name it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody is left to tell; the name has the process id in it.
        let _ = NetNs::delete(&self.name);
    }
}

/// A directory, removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates one below the directory for temporary files.
    pub fn new(what: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("seaway-{what}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The node.
#[derive(Debug)]
pub struct Node {
    // In this order: the files go after the namespace.
    space: Namespace,
    files: Scratch,
}

impl Node {
    /// Makes it; it forwards, and its overlay leads nowhere.
    pub async fn new() -> Result<Self> {
        let node = Self {
            space: Namespace::new("node")?,
            files: Scratch::new("node")?,
        };
        let netlink = Netlink::in_namespace(node.netns())?;
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        netlink.add_vxlan_external(LINK, 8472, mac, 1450).await?;
        let index = index_of(&netlink, LINK).await?;
        netlink.set_up(index).await?;
        let own = IpAddr::from([10, 244, 1, 0]).into();
        netlink.add_address(index, own, Scope::Global).await?;
        node.netns().run(|| {
            sysctl::write("net.ipv4.ip_forward", "1")?;
            sysctl::write("net.ipv6.conf.all.forwarding", "1")
        })??;
        Ok(node)
    }

    /// Its namespace.
    pub fn netns(&self) -> &NetNs {
        self.space.netns()
    }

    /// Files of it, gone with it.
    pub fn dir(&self) -> &Path {
        self.files.path()
    }

    /// Where the plugin keeps its ledger.
    pub fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// Our plugin, as an object of a list, for a network of these ranges; `node.json` is written.
    pub fn plugin(&self, network: &str, pod_cidrs: &[&str]) -> Result<Value> {
        let run = self.dir().join(network);
        let file = json!({
            "nodeName": "n1",
            "podCIDRs": pod_cidrs,
            "clusterCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"],
            "mtu": 1450,
            "vxlanLink": LINK,
        });
        std::fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
        std::fs::write(run.join("node.json"), file.to_string()).context("write node.json")?;
        Ok(json!({
            "type": "seaway-cni",
            "runDir": run,
            "stateDir": self.state(),
            "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
        }))
    }

    /// Another machine on a link with the node, which is its way to everywhere.
    pub async fn neighbour(&self) -> Result<Namespace> {
        let neighbour = Namespace::new("neighbour")?;
        let (near, far) = (
            Netlink::in_namespace(self.netns())?,
            Netlink::in_namespace(neighbour.netns())?,
        );
        let options = VethOptions {
            peer_netns: Some(neighbour.netns()),
            ..VethOptions::default()
        };
        near.add_veth("eth0", "eth0", options).await?;
        for (netlink, address) in [&near, &far].into_iter().zip(ADDRESSES) {
            let index = index_of(netlink, "eth0").await?;
            let network = ipnetwork::IpNetwork::new(IpAddr::from(address), 24)?;
            netlink.add_address(index, network, Scope::Global).await?;
            netlink.set_up(index).await?;
        }
        for netns in [self.netns(), neighbour.netns()] {
            netns.await_ready()?;
        }
        for (netlink, gateway) in [(&near, ADDRESSES[1]), (&far, ADDRESSES[0])] {
            let anywhere = ipnetwork::IpNetwork::new(IpAddr::from([0, 0, 0, 0]), 0)?;
            let mut route = Route::new(anywhere, 4);
            route.gateway = Some(gateway.into());
            netlink.add_route(&route).await?;
        }
        Ok(neighbour)
    }
}

/// The containers that have an address by the ledger in a state directory, and which; asked as an operator asks.
pub async fn owners(plugin: &Path, state: &Path) -> Result<Vec<(String, IpAddr)>> {
    let output = Command::new(plugin)
        .args(["ipam", "--json"])
        .arg(format!("--state-dir={}", state.display()))
        .output()
        .await?;
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let owners = entries.iter().filter_map(|entry| {
        let text = |key| entry.get(key)?.as_str();
        Some((
            text("containerID")?.to_owned(),
            text("address")?.parse().ok()?,
        ))
    });
    Ok(owners.collect())
}

async fn index_of(netlink: &Netlink, name: &str) -> Result<u32> {
    let link = netlink.link(name).await?;
    Ok(link.with_context(|| format!("no link {name}"))?.index)
}
