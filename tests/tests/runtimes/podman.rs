//! podman with its CNI backend on one node: what it asks for by flags, it sends as `CNI_ARGS` and capabilities.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seaway_kernel::{Command, CommandError};
use seaway_lab::eventually;
use seaway_tests::require::{self, Need};
use seaway_tests::runtimes::node::ADDRESSES;
use seaway_tests::runtimes::{Node, Scratch};
use seaway_tests::{http, trace};
use serde_json::{Value, json};

use crate::image::{self, IMAGE};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Binaries,
    Need::Program("podman"),
    Need::Program("runc"),
    Need::Program("conmon"),
    Need::File(image::BUSYBOX, "busybox-static"),
];

/// podman itself, from one call to the next.
const LIMIT: Duration = Duration::from_secs(60);

/// Its networks, and their ranges on this node.
const NETWORKS: [(&str, [&str; 2]); 2] = [
    ("one", ["10.244.1.0/24", "fd00:10:244:1::/64"]),
    ("two", ["10.244.2.0/24", "fd00:10:244:2::/64"]),
];

/// podman's files on a node; its containers are gone when dropped.
struct Podman<'a> {
    node: &'a Node,
    dir: PathBuf,
}

impl<'a> Podman<'a> {
    async fn new(node: &'a Node, dir: &Path) -> Result<Self> {
        let lists = dir.join("net.d");
        std::fs::create_dir_all(&lists)?;
        for (name, ranges) in NETWORKS {
            // podman knows only lists that it finds complete, and takes any type of plugin.
            let list = json!({
                "cniVersion": "1.0.0", "name": name,
                "plugins": [node.plugin(name, &ranges)?],
            });
            std::fs::write(lists.join(format!("{name}.conflist")), list.to_string())?;
        }
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let binaries = seaway_lab::topology::binaries()?;
        let limit = hard_limit_of_open_files()?;
        // Debian's crun knows no mixed layout of cgroups, and podman raises limits beyond what it may.
        let config = format!(
            "[network]
network_backend = \"cni\"
cni_plugin_dirs = [{}]
network_config_dir = {}
default_network = \"one\"
[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
runtime = \"runc\"
[containers]
default_ulimits = [\"nofile={limit}:{limit}\", \"nproc=32768:32768\"]
log_driver = \"k8s-file\"
",
            quoted(&binaries),
            quoted(&lists),
        );
        std::fs::write(dir.join("containers.conf"), config)?;
        let podman = Self {
            node,
            dir: dir.to_owned(),
        };
        let image = image::build(&dir.join("image"))?;
        podman
            .run(&["load", "-i", &image.to_string_lossy()])
            .await?;
        Ok(podman)
    }

    fn command(&self) -> Command {
        let sub = |name: &str| self.dir.join(name).display().to_string();
        Command::new("podman")
            .arg(format!("--root={}", sub("root")))
            .arg(format!("--runroot={}", sub("run")))
            .arg(format!("--tmpdir={}", sub("tmp")))
            .args(["--storage-driver=vfs", "--log-level=warn"])
            .env("CONTAINERS_CONF", sub("containers.conf"))
            .netns(self.node.netns())
            .timeout(LIMIT)
    }

    async fn run(&self, args: &[&str]) -> Result<String, CommandError> {
        Ok(self
            .command()
            .args(args)
            .output()
            .await?
            .text()
            .trim()
            .to_owned())
    }

    /// A container that serves its name by HTTP on port 8080, in both families.
    async fn serve(&self, name: &str, flags: &[&str]) -> Result<String> {
        let script = format!("echo {name} > /www/index.html; exec httpd -f -p 8080 -h /www");
        let command = [IMAGE, "sh", "-c", &script];
        let head = ["run", "--detach", "--name", name];
        Ok(self.run(&[&head[..], flags, &command[..]].concat()).await?)
    }

    /// What `podman inspect` says of the networks of a container, by their names.
    async fn networks(&self, name: &str) -> Result<Value> {
        let text = self.run(&["inspect", name]).await?;
        let inspected: Value = serde_json::from_str(&text)?;
        let networks = inspected.pointer("/0/NetworkSettings/Networks");
        Ok(networks.with_context(|| text.clone())?.clone())
    }
}

impl Drop for Podman<'_> {
    /// Best effort, by podman itself: it knows what it has mounted and started.
    fn drop(&mut self) {
        let args = ["rm", "--all", "--force", "--time=0"];
        let clean = std::thread::scope(|scope| {
            let clean = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime
                    .block_on(self.run(&args))
                    .map_err(std::io::Error::other)
            });
            clean.join()
        });
        if !matches!(clean, Ok(Ok(_))) {
            eprintln!("podman could not clean up: {clean:?}");
        }
    }
}

/// `Max open files` of this process.
fn hard_limit_of_open_files() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/limits")?;
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4));
    hard.and_then(|hard| hard.parse().ok())
        .context("/proc/self/limits")
}

/// Runs `test` over a node with podman; afterwards the node has to be as it was.
async fn with_podman(test: impl AsyncFnOnce(&Node, &Podman<'_>) -> Result<()>) -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let node = Node::new().await?;
    let scratch = Scratch::new("podman")?;
    let before = trace::of_namespace(node.netns()).await?;
    {
        let podman = Podman::new(&node, scratch.path()).await?;
        test(&node, &podman).await?;
        podman.run(&["rm", "--all", "--force", "--time=0"]).await?;
    }
    trace::is_again(node.netns(), &before).await?;
    Ok(())
}

fn address(of: &Value, key: &str) -> Result<IpAddr> {
    let text = of.get(key).and_then(Value::as_str);
    let address = text.and_then(|text| text.parse().ok());
    address.with_context(|| format!("{key} in {of}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_gives_containers_addresses_of_both_families() -> Result<()> {
    with_podman(async |node, podman| {
        podman.serve("web", &["--network=one"]).await?;
        let networks = podman.networks("web").await?;
        let one = &networks["one"];
        for key in ["IPAddress", "GlobalIPv6Address"] {
            let target = SocketAddr::new(address(one, key)?, 8080);
            let answer = eventually("the container answers", LIMIT, async || {
                http::get(node.netns(), target)
            });
            assert_eq!(answer.await?, "web");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn podmans_ip_and_mac_address_are_served_as_asked() -> Result<()> {
    with_podman(async |node, podman| {
        let (ip, mac) = ("10.244.1.50", "02:00:00:00:00:50");
        let flags = ["--network=one", "--ip", ip, "--mac-address", mac];
        podman.serve("web", &flags).await?;
        let networks = podman.networks("web").await?;
        assert_eq!(networks["one"]["IPAddress"], ip);
        assert_eq!(networks["one"]["MacAddress"], mac);
        let link = podman.run(&["exec", "web", "cat", "/sys/class/net/eth0/address"]);
        assert_eq!(link.await?, mac);
        let target = SocketAddr::new(ip.parse()?, 8080);
        let answer = eventually("the container answers", LIMIT, async || {
            http::get(node.netns(), target)
        });
        assert_eq!(answer.await?, "web");
        // A second one cannot have it, and gets nothing.
        let taken = podman.serve("second", &["--network=one", "--ip", ip]).await;
        let why = format!(
            "{:#}",
            taken.err().context("one address for two containers")?
        );
        ensure!(why.contains(ip), "{why}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_podman_answers_from_another_machine_until_the_container_is_gone() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let node = Node::new().await?;
    let neighbour = node.neighbour().await?;
    let scratch = Scratch::new("podman")?;
    let before = trace::of_namespace(node.netns()).await?;
    let podman = Podman::new(&node, scratch.path()).await?;
    podman
        .serve("web", &["--network=one", "-p", "18080:8080"])
        .await?;
    let port = SocketAddr::from((ADDRESSES[0], 18080));
    let answer = eventually("the port answers", LIMIT, async || {
        http::get(neighbour.netns(), port)
    });
    assert_eq!(answer.await?, "web");
    podman.run(&["rm", "--force", "--time=0", "web"]).await?;
    let after = http::get(neighbour.netns(), port);
    ensure!(after.is_err(), "the port still answers {after:?}");
    drop(podman);
    trace::is_again(node.netns(), &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_podman_can_be_in_two_networks() -> Result<()> {
    with_podman(async |node, podman| {
        podman
            .serve("web", &["--network=one", "--network=two"])
            .await?;
        let networks = podman.networks("web").await?;
        let mut seen = BTreeSet::new();
        for (name, _) in NETWORKS {
            let ip = address(&networks[name], "IPAddress")?;
            seen.insert(ip);
            let target = SocketAddr::new(ip, 8080);
            let answer = eventually("the container answers", LIMIT, async || {
                http::get(node.netns(), target)
            });
            assert_eq!(answer.await?, "web");
        }
        assert_eq!(seen.len(), 2);
        Ok(())
    })
    .await
}
