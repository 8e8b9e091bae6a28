//! Namespaces, links and cgroups of the node and its pods.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seaway_kernel::{MacAddr, NetNs, Offload, cgroup, sysctl};

/// Address of the node on its uplink.
pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 78, 1);

/// Hardware address of the uplink.
pub const NODE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0x78, 1]);

/// Address of somebody outside.
pub const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 78, 200);

/// Address of another node.
pub const PEER_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 79, 2);

/// Addresses of pods, as the proxy is told.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";

/// Addresses of Services, in a server of our own.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";

/// The pods of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Asks.
    Client,
    /// The backends between which a Service is moved.
    First,
    Second,
    /// Has all addresses of [`crowd`]: the endpoints of all other Services.
    Crowd,
}

impl Role {
    const ALL: [Self; 4] = [Self::Client, Self::First, Self::Second, Self::Crowd];

    /// Its address; [`Role::Crowd`] has others besides.
    pub fn address(self) -> Ipv4Addr {
        let number: u8 = match self {
            Self::Client => 10,
            Self::First => 11,
            Self::Second => 12,
            Self::Crowd => 13,
        };
        Ipv4Addr::new(10, 244, 1, number)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::First => "first",
            Self::Second => "second",
            Self::Crowd => "crowd",
        }
    }
}

/// How many addresses the crowd has: 10.244.128.0/17 without its ends.
pub const CROWD: usize = 32_766;

/// Address of an endpoint that nobody moves. More than [`CROWD`] of them share addresses, which no rule minds.
pub fn crowd(number: usize) -> Ipv4Addr {
    let [_, _, high, low] = ((number % CROWD) as u32 + 1).to_be_bytes();
    Ipv4Addr::new(10, 244, 128 | high, low)
}

/// The node and its pods; gone when dropped.
#[derive(Debug)]
pub struct Node {
    /// What everything of this run is called.
    pub name: String,
    /// For files.
    pub scratch: PathBuf,
    cgroup: PathBuf,
    pub bpffs: PathBuf,
}

impl Node {
    /// Makes the namespaces and wires them.
    pub fn new() -> Result<Self> {
        let name = format!("sw-bench-{}", std::process::id());
        let node = Self {
            scratch: std::env::temp_dir().join(&name),
            cgroup: cgroup::mount_point()?.join(&name),
            bpffs: PathBuf::from(format!("/sys/fs/bpf/seaway/{name}")),
            name,
        };
        fs::create_dir(&node.scratch)
            .with_context(|| format!("create {}", node.scratch.display()))?;
        for path in [node.pods_cgroup(), node.server_cgroup()] {
            cgroup::create(&path)?;
        }
        node.wire()?;
        Ok(node)
    }

    /// The node's own namespace.
    pub fn netns(&self) -> Result<NetNs> {
        Ok(NetNs::named(&self.space("node"))?)
    }

    /// A pod's namespace.
    pub fn pod_netns(&self, pod: Role) -> Result<NetNs> {
        Ok(NetNs::named(&self.space(pod.name()))?)
    }

    /// Somebody outside, on the node's uplink.
    pub fn outside_netns(&self) -> Result<NetNs> {
        Ok(NetNs::named(&self.space("outside"))?)
    }

    /// Another node, on another link.
    pub fn peer_netns(&self) -> Result<NetNs> {
        Ok(NetNs::named(&self.space("peer"))?)
    }

    /// Where socket hooks are attached: everything of the node is below.
    pub fn cgroup(&self) -> PathBuf {
        self.cgroup.join("node")
    }

    /// What pods join.
    pub fn pods_cgroup(&self) -> PathBuf {
        self.cgroup().join("pods")
    }

    /// The API server's, which is no part of the node.
    pub fn server_cgroup(&self) -> PathBuf {
        self.cgroup.join("server")
    }

    /// An empty cgroup for one run of a proxy, so that what it costs is counted from zero.
    pub fn fresh_cgroup(&self, number: usize) -> Result<PathBuf> {
        let path = self.cgroup().join(format!("proxy{number}"));
        cgroup::create(&path)?;
        Ok(path)
    }

    /// The name of a namespace, by what it is.
    pub(in crate::bench) fn space(&self, short: &str) -> String {
        format!("{}-{short}", self.name)
    }

    fn spaces(&self) -> impl Iterator<Item = String> {
        let pods = Role::ALL.into_iter().map(Role::name);
        pods.chain(["node", "outside", "peer"])
            .map(|s| self.space(s))
    }

    fn wire(&self) -> Result<()> {
        for name in self.spaces() {
            NetNs::create(&name)?;
        }
        // Until a proxy serves an address, a packet to it must not leave the node: connection tracking would remember
        // it, and let a later one from the same port go the same way.
        let mut node = format!(
            "link add eth0 address {NODE_MAC} type veth peer name eth0 netns {}
             address add {NODE_IP}/24 dev eth0
             link set eth0 up
             link add eth1 type veth peer name eth0 netns {}
             address add 192.168.79.1/24 dev eth1
             link set eth1 up
             route add default via {OUTSIDE_IP}
             route add unreachable {SERVICE_CIDR}
             link add seaway.vxlan address 02:00:00:00:00:01 mtu 1450 type vxlan external dstport 8472
             address add 10.244.1.0/32 dev seaway.vxlan
             link set seaway.vxlan up",
            self.space("outside"),
            self.space("peer")
        );
        for (number, pod) in Role::ALL.into_iter().enumerate() {
            let (link, address) = (format!("sw0000000000{number}"), pod.address());
            node += &format!(
                "\nlink add {link} mtu 1450 type veth peer name eth0 netns {}
                 link set {link} address 02:00:00:00:01:01 up
                 route add {address}/32 dev {link} scope link",
                self.space(pod.name())
            );
            if pod == Role::Crowd {
                node += &format!("\nroute add 10.244.128.0/17 via {address} dev {link} onlink");
            }
        }
        ip(&self.space("node"), &node)?;
        ip(
            &self.space("outside"),
            &format!("address add {OUTSIDE_IP}/24 dev eth0\nlink set eth0 up"),
        )?;
        ip(
            &self.space("peer"),
            &format!(
                "address add {PEER_IP}/24 dev eth0
                 link set eth0 up
                 route add default via 192.168.79.1"
            ),
        )?;
        for pod in Role::ALL {
            let mut inside = format!(
                "link set eth0 mtu 1450 up
                 address add {}/32 dev eth0
                 route add 169.254.1.1 dev eth0 scope link
                 neigh add 169.254.1.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
                 route add default via 169.254.1.1 dev eth0",
                pod.address()
            );
            if pod == Role::Crowd {
                inside += "\nroute add local 10.244.128.0/17 dev lo";
            }
            ip(&self.space(pod.name()), &inside)?;
        }
        // What comes in is polled for, as from a card, so that the other end may send frames.
        for space in [self.netns()?, self.peer_netns()?] {
            space.run(|| Offload::open()?.set_gro("eth0", true))??;
        }
        self.netns()?
            .run(|| sysctl::write("net.ipv4.ip_forward", "1"))??;
        Ok(())
    }
}

impl Drop for Node {
    /// Best effort: nobody is left to tell, and every name has the process id in it.
    fn drop(&mut self) {
        let _ = cgroup::kill(&self.cgroup);
        let _ = cgroup::wait_empty(&self.cgroup, Duration::from_secs(5));
        for name in self.spaces() {
            let _ = NetNs::delete(&name);
        }
        let _ = cgroup::delete(&self.cgroup);
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// Carries out a batch of commands of `ip` in a named namespace.
pub fn ip(netns: &str, batch: &str) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-n", netns, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("run ip (package iproute2)")?;
    let batch: String = batch.lines().map(|l| format!("{}\n", l.trim())).collect();
    if let Some(mut stdin) = ip.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    ensure!(ip.wait()?.success(), "ip {batch}");
    Ok(())
}

/// The tail of a log, for an error.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_an_address_of_the_crowd() {
        assert_eq!(crowd(0), Ipv4Addr::new(10, 244, 128, 1));
        assert_eq!(crowd(255), Ipv4Addr::new(10, 244, 129, 0));
        assert_eq!(crowd(CROWD - 1), Ipv4Addr::new(10, 244, 255, 254));
        assert_eq!(crowd(CROWD), crowd(0));
    }
}
