//! A node with pods, another node with a pod behind the overlay, and a client outside, all in network namespaces.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use seaway_kernel::{NetNs, cgroup, sysctl};

use crate::bench::one_node::wiring::ip;

/// The node under test, on its uplink.
pub const NODE: [&str; 2] = ["192.168.77.1", "fd00:77::1"];

/// A namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// What joins nodes.
    Fabric,
    /// The node under test.
    Node,
    /// Pods of it: the first asks and answers, the second answers.
    Pod,
    Second,
    /// Another node, and its pod.
    Peer,
    Remote,
    /// Neither.
    Outside,
}

impl Space {
    const ALL: [Self; 7] = [
        Self::Fabric,
        Self::Node,
        Self::Pod,
        Self::Second,
        Self::Peer,
        Self::Remote,
        Self::Outside,
    ];

    /// What its server answers.
    pub fn tag(self) -> u8 {
        self as u8
    }

    /// Its address as the endpoint of a Service.
    pub fn endpoint(self, v6: bool) -> &'static str {
        let addresses = match self {
            Self::Second => ["10.244.1.6", "fd00:10:244:1::6"],
            Self::Remote => ["10.244.2.5", "fd00:10:244:2::5"],
            Self::Node => NODE,
            _ => ["10.244.1.5", "fd00:10:244:1::5"],
        };
        addresses[usize::from(v6)]
    }
}

/// Everything in it; gone when dropped.
#[derive(Debug)]
pub struct World {
    name: String,
    /// For files.
    pub scratch: PathBuf,
    pub bpffs: PathBuf,
}

impl World {
    /// Makes and wires it, with servers nowhere yet.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sw-flows-{}-{number}", std::process::id());
        let world = Self {
            scratch: std::env::temp_dir().join(&name),
            bpffs: PathBuf::from(format!("/sys/fs/bpf/seaway/{name}")),
            name,
        };
        fs::create_dir(&world.scratch)
            .with_context(|| format!("create {}", world.scratch.display()))?;
        cgroup::create(&world.pods()?)?;
        for space in Space::ALL {
            NetNs::create(&world.space(space))?;
        }
        world.wire()?;
        Ok(world)
    }

    /// A namespace of it.
    pub fn netns(&self, space: Space) -> Result<NetNs> {
        Ok(NetNs::named(&self.space(space))?)
    }

    fn space(&self, space: Space) -> String {
        format!("{}-{}", self.name, format!("{space:?}").to_lowercase())
    }

    /// Where socket hooks are attached.
    pub fn cgroup(&self) -> Result<PathBuf> {
        Ok(cgroup::mount_point()?.join(&self.name))
    }

    /// What processes join that the hooks are to see.
    pub fn pods(&self) -> Result<PathBuf> {
        Ok(self.cgroup()?.join("pods"))
    }

    fn batch(&self, space: Space, batch: &str) -> Result<()> {
        ip(&self.space(space), batch)
    }

    fn wire(&self) -> Result<()> {
        let [node, peer, outside] =
            [Space::Node, Space::Peer, Space::Outside].map(|s| self.space(s));
        self.batch(
            Space::Fabric,
            &format!(
                "link add br0 type bridge
                 link set br0 up
                 link add porta type veth peer name eth0 netns {node}
                 link add portb type veth peer name eth0 netns {peer}
                 link add portc type veth peer name eth0 netns {outside}
                 link set porta master br0 up
                 link set portb master br0 up
                 link set portc master br0 up"
            ),
        )?;
        self.batch(
            Space::Outside,
            "address add 192.168.77.200/24 dev eth0
             address add fd00:77::200/64 dev eth0 nodad
             link set eth0 up",
        )?;
        for (space, own, other) in [(Space::Node, 1, 2), (Space::Peer, 2, 1)] {
            self.node_side(space, own, other)?;
        }
        for (number, (node, pod)) in [
            (Space::Node, Space::Pod),
            (Space::Node, Space::Second),
            (Space::Peer, Space::Remote),
        ]
        .into_iter()
        .enumerate()
        {
            self.pod_side(node, pod, number)?;
        }
        for space in Space::ALL {
            // Servers of both families stand side by side.
            self.netns(space)?
                .run(|| sysctl::write("net.ipv6.bindv6only", "1"))??;
        }
        Ok(())
    }

    /// Addresses and the overlay, as `seaway-overlay` makes them.
    fn node_side(&self, space: Space, own: u8, other: u8) -> Result<()> {
        self.batch(
            space,
            &format!(
                "address add 192.168.77.{own}/24 dev eth0
                 address add fd00:77::{own}/64 dev eth0 nodad
                 link set lo up
                 link set eth0 up
                 route add default via 192.168.77.254 dev eth0
                 route add default via fd00:77::254 dev eth0
                 link add seaway.vxlan address 02:00:00:00:00:0{own} mtu 1450 type vxlan external dstport 8472
                 address add 10.244.{own}.0/32 dev seaway.vxlan
                 address add fd00:10:244:{own}::/128 dev seaway.vxlan nodad
                 link set seaway.vxlan up
                 neigh add 10.244.{other}.0 lladdr 02:00:00:00:00:0{other} dev seaway.vxlan nud permanent
                 route add 10.244.{other}.0/24 encap ip id 1 dst 192.168.77.{other} via 10.244.{other}.0 dev seaway.vxlan onlink
                 neigh add fd00:10:244:{other}:: lladdr 02:00:00:00:00:0{other} dev seaway.vxlan nud permanent
                 route add fd00:10:244:{other}::/64 encap ip id 1 dst 192.168.77.{other} via fd00:10:244:{other}:: dev seaway.vxlan onlink"
            ),
        )?;
        self.netns(space)?.run(|| {
            sysctl::write("net.ipv4.ip_forward", "1")?;
            sysctl::write("net.ipv6.conf.all.forwarding", "1")
        })??;
        Ok(())
    }

    /// The link of a pod, as the CNI plugin makes it.
    fn pod_side(&self, node: Space, pod: Space, number: usize) -> Result<()> {
        let [v4, v6] = [false, true].map(|v6| pod.endpoint(v6));
        let uplink = if node == Space::Node {
            "fd00:77::1"
        } else {
            "fd00:77::2"
        };
        self.batch(
            node,
            &format!(
                "link add sw0000000000{number} mtu 1450 type veth peer name eth0 netns {}
                 link set sw0000000000{number} address 02:00:00:00:01:01 up
                 route add {v4}/32 dev sw0000000000{number} scope link
                 route add {v6}/128 dev sw0000000000{number} src {uplink}",
                self.space(pod)
            ),
        )?;
        self.batch(
            pod,
            &format!(
                "link set lo up
                 link set eth0 mtu 1450 up
                 address add {v4}/32 dev eth0
                 route add 169.254.1.1 dev eth0 scope link
                 neigh add 169.254.1.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
                 route add default via 169.254.1.1 dev eth0
                 address add {v6}/128 dev eth0 nodad
                 neigh add fe80::1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
                 route add default via fe80::1 dev eth0"
            ),
        )
    }
}

impl Drop for World {
    /// Best effort: nobody is left to tell, and every name has the process id in it.
    fn drop(&mut self) {
        for space in Space::ALL {
            let _ = NetNs::delete(&self.space(space));
        }
        if let Ok(cgroup) = self.cgroup() {
            let _ = cgroup::kill(&cgroup);
            let _ = cgroup::wait_empty(&cgroup, Duration::from_secs(5));
            let _ = cgroup::delete(&cgroup);
        }
        let _ = fs::remove_dir_all(&self.scratch);
    }
}
