//! A node as the plugin sees it, and calls of the plugin as a runtime makes them.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use seaway_kernel::{MacAddr, NetNs, Netlink, Scope};
use serde_json::json;

/// A named network namespace, deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    netns: NetNs,
}

impl Namespace {
    /// Creates one; `what` tells it from the others of this process.
    pub fn new(what: &str) -> Result<Self> {
        let name = format!("sw-bench-{}-{what}", std::process::id());
        let netns = NetNs::create(&name)?;
        Ok(Self { name, netns })
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody is left to tell; the name has the process id in it.
        let _ = NetNs::delete(&self.name);
    }
}

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    /// Does nothing but answer: what starting the plugin costs.
    Version,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Version => "VERSION",
        }
    }
}

/// A node whose overlay has done its part: the device, and `node.json`.
#[derive(Debug)]
pub struct Node {
    // In this order: the files go after the namespace.
    space: Namespace,
    files: Files,
    program: PathBuf,
}

impl Node {
    /// Makes the node. The plugin is the one beside our other binaries.
    pub async fn new() -> Result<Self> {
        let node = Self {
            space: Namespace::new("node")?,
            files: Files::new()?,
            program: seaway_lab::topology::binaries()?.join("seaway-cni"),
        };
        let netlink = Netlink::in_namespace(&node.space.netns)?;
        let link = "seaway.vxlan";
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        netlink.add_vxlan_external(link, 8472, mac, 1450).await?;
        let index = netlink.link(link).await?.context("no VXLAN device")?.index;
        netlink.set_up(index).await?;
        let own = std::net::IpAddr::from([10, 244, 1, 0]).into();
        netlink.add_address(index, own, Scope::Global).await?;
        let file = json!({
            "nodeName": "n1",
            "podCIDRs": ["10.244.1.0/24"],
            "clusterCIDRs": ["10.244.0.0/16"],
            "mtu": 1450,
            "vxlanLink": link,
        });
        let run = node.files.0.join("run");
        std::fs::create_dir(&run).context("create the run directory")?;
        std::fs::write(run.join("node.json"), file.to_string()).context("write node.json")?;
        Ok(node)
    }

    /// One call, from its start to its end.
    pub fn call(&self, verb: Verb, pod: &Namespace) -> Result<Duration> {
        let inside = self.space.netns.run(|| {
            let start = Instant::now();
            let child = self.start(verb, pod)?;
            finish(child, verb)?;
            Ok(start.elapsed())
        });
        inside?
    }

    /// A call for each pod, all at once; until the last has ended.
    pub fn call_at_once(&self, verb: Verb, pods: &[Namespace]) -> Result<Duration> {
        let inside = self.space.netns.run(|| {
            let start = Instant::now();
            let calls: Vec<_> = pods.iter().map(|pod| self.start(verb, pod)).collect();
            // Every one that was started is waited for, also when another failed.
            let ends: Vec<_> = calls
                .into_iter()
                .map(|child| child.and_then(|child| finish(child, verb)))
                .collect();
            let took = start.elapsed();
            ends.into_iter().collect::<Result<()>>()?;
            Ok(took)
        });
        inside?
    }

    /// Started from a thread inside of the node's namespace, not through code between fork and exec: so the kernel
    /// need not copy our page tables, which would count as time of the plugin.
    fn start(&self, verb: Verb, pod: &Namespace) -> Result<Child> {
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "seaway",
            "type": "seaway-cni",
            "runDir": self.files.0.join("run"),
            "stateDir": self.files.0.join("state"),
        });
        let mut child = Command::new(&self.program)
            .env_clear()
            .env("CNI_COMMAND", verb.as_str())
            .env("CNI_CONTAINERID", &pod.name)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .with_context(|| format!("run {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that reads nothing says why in its answer.
            let _ = stdin.write_all(config.to_string().as_bytes());
        }
        Ok(child)
    }
}

fn finish(child: Child, verb: Verb) -> Result<()> {
    let output = child.wait_with_output().context("wait for the plugin")?;
    if !output.status.success() {
        let answer = String::from_utf8_lossy(&output.stdout);
        bail!("{} failed ({}): {answer}", verb.as_str(), output.status);
    }
    Ok(())
}

/// The node's directory, removed when dropped.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("seaway-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
