//! The same between nodes that have IPv6 alone. No lab has that, so they are made here, and follow manifests.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result};
use seaway_kernel::{NetNs, Spawn, cgroup};
use seaway_lab::traffic::Transport;
use seaway_lab::{Mode, Place, eventually, topology};
use seaway_model::ownership::CONFLIST_FILE;
use seaway_tests::bench::one_node::wiring::ip;
use seaway_tests::runtimes::libcni::addresses;
use seaway_tests::runtimes::list::NEW;
use seaway_tests::runtimes::{Attachment, Libcni, List, Namespace, Scratch};
use seaway_tests::{reach, require};
use serde_json::{Map, json};

use super::PORT;

/// The Service whose endpoints are the pods with the port: it shows that the proxies are at work.
const SERVICE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_of_ipv6_answer_from_everywhere_in_both_modes() -> Result<()> {
    if !require::met(require::LAB) {
        return Ok(());
    }
    let mut world = World::new().await?;
    for modes in [[Mode::Iptables, Mode::Ebpf], [Mode::Ebpf, Mode::Iptables]] {
        world.start_proxies(modes)?;
        world
            .service_answers()
            .await
            .with_context(|| world.logs())?;
        world.answers().await.with_context(|| world.logs())?;
        world.stop_proxies()?;
        world.answers().await.context("without proxies")?;
    }
    Ok(())
}

/// Two nodes and a client outside on one wire; gone when dropped.
struct World {
    nodes: Vec<Node>,
    outside: Namespace,
    cgroup: PathBuf,
    dir: Scratch,
    fabric: Namespace,
}

struct Node {
    number: u16,
    space: Namespace,
    cgroup: PathBuf,
    dir: PathBuf,
    bpffs: PathBuf,
    overlay: Option<Child>,
    proxy: Option<Child>,
    /// With the port, and without.
    pods: Vec<Pod>,
}

struct Pod {
    name: String,
    space: Namespace,
    address: Ipv6Addr,
    server: Child,
}

impl World {
    async fn new() -> Result<Self> {
        let fabric = Namespace::new("fabric")?;
        let dir = Scratch::new("ports")?;
        let cgroup = cgroup::mount_point()?.join(fabric.name());
        cgroup::create(&cgroup)?;
        let mut world = Self {
            nodes: Vec::new(),
            outside: Namespace::new("outside")?,
            cgroup,
            dir,
            fabric,
        };
        cgroup::create(&world.cgroup.join("outside"))?;
        fs::create_dir(world.manifests())?;
        let fabric = world.fabric.name().to_owned();
        ip(&fabric, "link add br0 type bridge\nlink set br0 up")?;
        for number in [1, 2] {
            let node = Node::new(number, &world)?;
            join(&fabric, &node.space, number)?;
            fs::write(
                world.manifests().join(format!("n{number}.json")),
                json!({
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": format!("n{number}")},
                    "spec": {"podCIDRs": [format!("fd01:0:0:{number}::/64")]},
                    "status": {"addresses": [{"type": "InternalIP", "address": node_ip(number)}]},
                })
                .to_string(),
            )?;
            world.nodes.push(node);
        }
        join(&fabric, &world.outside, 200)?;
        let manifests = world.manifests();
        for node in &mut world.nodes {
            node.overlay = Some(node.start_overlay(&manifests)?);
        }
        for node in &mut world.nodes {
            node.attach_pods().await?;
        }
        world.declare_service()?;
        Ok(world)
    }

    fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    fn declare_service(&self) -> Result<()> {
        let endpoints = self.nodes.iter().map(|node| {
            json!({
                "addresses": [node.pods[0].address],
                "nodeName": format!("n{}", node.number),
                "conditions": {"ready": true},
            })
        });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "ports"},
            "spec": {
                "clusterIP": SERVICE, "clusterIPs": [SERVICE], "ipFamilies": ["IPv6"],
                "ports": [{"name": "a", "protocol": "TCP", "port": 80}],
            },
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "ports-1", "labels": {"kubernetes.io/service-name": "ports"}},
            "addressType": "IPv6",
            "ports": [{"name": "a", "protocol": "TCP", "port": 8080}],
            "endpoints": endpoints.collect::<Vec<_>>(),
        });
        fs::write(self.manifests().join("service.json"), service.to_string())?;
        fs::write(self.manifests().join("slice.json"), slice.to_string())?;
        Ok(())
    }

    fn start_proxies(&mut self, modes: [Mode; 2]) -> Result<()> {
        let manifests = self.manifests();
        for (node, mode) in self.nodes.iter_mut().zip(modes) {
            node.proxy = Some(node.start_proxy(mode, &manifests)?);
        }
        Ok(())
    }

    /// They leave what they did in the kernel.
    fn stop_proxies(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            end(node.proxy.take())?;
        }
        Ok(())
    }

    fn outside(&self) -> Result<Place> {
        self.place("outside", self.outside.netns(), "outside")
    }

    fn place(&self, label: &str, netns: &NetNs, cgroup: &str) -> Result<Place> {
        Ok(Place::new(
            label,
            netns.clone(),
            self.cgroup.join(cgroup),
            topology::binaries()?,
            self.dir.path().into(),
        ))
    }

    /// Everywhere in the cluster, first the nodes.
    fn inside(&self) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for node in &self.nodes {
            let name = format!("n{}", node.number);
            places.push(self.place(&name, node.space.netns(), &format!("{name}/node"))?);
            for pod in &node.pods {
                let cgroup = format!("{name}/pods");
                places.push(self.place(&pod.name, pod.space.netns(), &cgroup)?);
            }
        }
        Ok(places)
    }

    async fn service_answers(&self) -> Result<()> {
        let owners = self.nodes.iter().map(|node| node.pods[0].name.clone());
        let owners: BTreeSet<_> = owners.collect();
        let target = SocketAddr::from((SERVICE, 80));
        for place in self.inside()? {
            let asked = async || reach::reaches(&place, Transport::Tcp, target, &owners).await;
            eventually("the Service", PATIENCE, asked).await?;
        }
        Ok(())
    }

    /// Of each node the port answers from outside, from both nodes, and from every pod: its own, one beside it, those of the
    /// other node.
    async fn answers(&self) -> Result<()> {
        for owner in &self.nodes {
            let pods = BTreeSet::from([owner.pods[0].name.clone()]);
            let target = SocketAddr::from((node_ip(owner.number), PORT));
            for transport in [Transport::Tcp, Transport::Udp] {
                for from in self.inside()?.into_iter().chain([self.outside()?]) {
                    reach::reaches(&from, transport, target, &pods).await?;
                }
            }
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let logs = self.nodes.iter().flat_map(|node| {
            let logs = ["overlay", "proxy"].map(|daemon| node.dir.join(format!("{daemon}.log")));
            logs.map(|log| fs::read_to_string(log).unwrap_or_default())
        });
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for World {
    /// Best effort: a failure here would hide that of the test.
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let servers = node.pods.iter_mut().map(|pod| &mut pod.server);
            let daemons = node.proxy.iter_mut().chain(&mut node.overlay);
            for child in servers.chain(daemons) {
                let _ = child.kill();
                let _ = child.wait();
            }
            let _ = node.cleanup();
        }
        let _ = cgroup::kill(&self.cgroup);
        let _ = cgroup::wait_empty(&self.cgroup, Duration::from_secs(2));
        let _ = cgroup::delete(&self.cgroup);
    }
}

impl Node {
    fn new(number: u16, world: &World) -> Result<Self> {
        let space = Namespace::new("node")?;
        let node = Self {
            number,
            cgroup: world.cgroup.join(format!("n{number}")),
            dir: world.dir.path().join(format!("n{number}")),
            bpffs: PathBuf::from(format!("/sys/fs/bpf/seaway/{}", space.name())),
            space,
            overlay: None,
            proxy: None,
            pods: Vec::new(),
        };
        for part in ["node", "pods"] {
            cgroup::create(&node.cgroup.join(part))?;
        }
        fs::create_dir_all(node.dir.join("bin"))?;
        let plugin = topology::binaries()?.join("seaway-cni");
        std::os::unix::fs::symlink(plugin, node.dir.join("bin/seaway-cni"))?;
        Ok(node)
    }

    fn spawn(&self, program: &str, log: &str) -> Result<Spawn> {
        let log = self.dir.join(format!("{log}.log"));
        Ok(Spawn::new(topology::binaries()?.join(program))
            .netns(self.space.netns())
            .cgroup(self.cgroup.join("node"))
            .stdout(&log)
            .stderr(log))
    }

    fn flag(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.dir.join(name).display())
    }

    fn start_overlay(&self, manifests: &std::path::Path) -> Result<Child> {
        let overlay = self.spawn("seaway-overlay", "overlay")?.args([
            "run".to_owned(),
            format!("--node-name=n{}", self.number),
            "--cluster-cidr=fd01::/48".into(),
            format!("--manifests={}", manifests.display()),
            self.flag("run-dir", "run"),
            self.flag("state-dir", "state"),
            self.flag("cni-conf-dir", "conf"),
            self.flag("cni-bin-dir", "bin"),
        ]);
        Ok(overlay.start()?)
    }

    fn kernel_flags(&self) -> [String; 3] {
        [
            format!("--cgroup-root={}", self.cgroup.display()),
            format!("--bpffs-root={}", self.bpffs.display()),
            self.flag("run-dir", "run"),
        ]
    }

    fn start_proxy(&self, mode: Mode, manifests: &std::path::Path) -> Result<Child> {
        let proxy = self.spawn("seaway-proxy", "proxy")?.args([
            "run".to_owned(),
            format!("--mode={mode}"),
            format!("--hostname-override=n{}", self.number),
            "--cluster-cidr=fd01::/48".into(),
            format!("--manifests={}", manifests.display()),
        ]);
        Ok(proxy.args(self.kernel_flags()).start()?)
    }

    fn cleanup(&self) -> Result<()> {
        let cleanup = self.spawn("seaway-proxy", "cleanup")?.arg("cleanup");
        cleanup.args(self.kernel_flags()).start()?.wait()?;
        Ok(())
    }

    async fn attach_pods(&mut self) -> Result<()> {
        let list = self.dir.join("conf").join(CONFLIST_FILE);
        let there = async || {
            if list.exists() {
                Ok(())
            } else {
                Err("no config list")
            }
        };
        eventually("the overlay", PATIENCE, there).await?;
        let list = List::read(&list, NEW)?;
        let runtime = Libcni {
            node: self.space.netns().clone(),
            path: vec![self.dir.join("bin")],
            cache: self.dir.join("cache"),
        };
        for what in ["owner", "beside"] {
            let space = Namespace::new(what)?;
            let mut capabilities = Map::new();
            if what == "owner" {
                let port = |protocol| json!({"hostPort": PORT, "containerPort": 8080, "protocol": protocol});
                capabilities.insert("portMappings".into(), json!([port("tcp"), port("udp")]));
            }
            let attachment = Attachment {
                container_id: space.name().to_owned(),
                ifname: "eth0".into(),
                netns: space.path(),
                args: String::new(),
                capabilities,
            };
            let result = runtime.add(&list, &attachment).await?;
            let address = addresses(&result).first().map(|network| network.ip());
            let Some(std::net::IpAddr::V6(address)) = address else {
                anyhow::bail!("no IPv6 address in {result}");
            };
            let name = format!("{what}-n{}", self.number);
            let server = Spawn::new(topology::binaries()?.join("seaway"))
                .arg("echo")
                .env("POD_NAME", &name)
                .env("POD_IP", address.to_string())
                .netns(space.netns())
                .cgroup(self.cgroup.join("pods"))
                .stderr(self.dir.join(format!("{name}.log")))
                .start()?;
            self.pods.push(Pod {
                name,
                space,
                address,
                server,
            });
        }
        Ok(())
    }
}

fn node_ip(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x78, 0, 0, 0, 0, 0, number)
}

/// On the wire, at its address.
fn join(fabric: &str, space: &Namespace, number: u16) -> Result<()> {
    ip(
        fabric,
        &format!(
            "link add port{number} type veth peer name eth0 netns {}
             link set port{number} master br0 up",
            space.name()
        ),
    )?;
    ip(
        space.name(),
        &format!(
            "address add {}/64 dev eth0 nodad
             link set lo up
             link set eth0 up",
            node_ip(number)
        ),
    )
}

/// As a service manager does.
fn end(child: Option<Child>) -> Result<()> {
    if let Some(mut child) = child {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
