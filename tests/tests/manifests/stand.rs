//! One node with three pods and a client outside, in namespaces, and no control plane at all.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use seaway_kernel::{NetNs, Spawn, cgroup};
use seaway_lab::{Finished, Mode, Place, eventually};
use seaway_tests::trace;

/// Address of the node where the client outside reaches it.
pub(crate) const NODE_IP: &str = "192.168.78.1";

/// The pods: name and address. The first two serve, the third asks.
pub(crate) const PODS: [(&str, &str); 3] = [
    ("pod1", "10.244.1.11"),
    ("pod2", "10.244.1.12"),
    ("client", "10.244.1.13"),
];

/// Everything that a test makes; gone when dropped.
pub(crate) struct Stand {
    id: String,
    mode: Mode,
    scratch: PathBuf,
    cgroup: PathBuf,
    outside: PathBuf,
    bpffs: PathBuf,
    servers: Vec<Child>,
    proxy: Option<Child>,
    starts: usize,
}

impl Stand {
    pub(crate) fn new(mode: Mode) -> Result<Self> {
        let id = format!("sws{}{}", std::process::id(), &mode.to_string()[..1]);
        let root = cgroup::mount_point()?;
        let mut stand = Self {
            mode,
            scratch: std::env::temp_dir().join(&id),
            cgroup: root.join(&id),
            outside: root.join(format!("{id}-outside")),
            bpffs: PathBuf::from(format!("/sys/fs/bpf/seaway/{id}")),
            servers: Vec::new(),
            proxy: None,
            starts: 0,
            id,
        };
        fs::create_dir_all(stand.manifests())?;
        cgroup::create(&stand.cgroup.join("pods"))?;
        cgroup::create(&stand.cgroup.join("node"))?;
        cgroup::create(&stand.outside)?;
        stand.wire()?;
        for (pod, address) in &PODS[..2] {
            let server = Spawn::new(seaway_lab::topology::binaries()?.join("seaway"))
                .arg("echo")
                .env("POD_NAME", pod)
                .env("POD_IP", address)
                .netns(&stand.netns(pod)?)
                .cgroup(stand.cgroup.join("pods"))
                .stderr(stand.scratch.join(format!("{pod}.log")))
                .start()?;
            stand.servers.push(server);
        }
        Ok(stand)
    }

    /// The directory that the proxy follows.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.scratch.join("manifests")
    }

    pub(crate) fn bpffs(&self) -> &std::path::Path {
        &self.bpffs
    }

    fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.id)
    }

    fn netns(&self, short: &str) -> Result<NetNs> {
        Ok(NetNs::named(&self.name(short))?)
    }

    /// The node itself, a pod, or `outside`.
    pub(crate) fn place(&self, short: &str) -> Result<Place> {
        let cgroup = match short {
            "outside" => self.outside.clone(),
            "node" => self.cgroup.join("node"),
            _ => self.cgroup.join("pods"),
        };
        let binaries = seaway_lab::topology::binaries()?;
        let scratch = self.scratch.clone();
        Ok(Place::new(
            short,
            self.netns(short)?,
            cgroup,
            binaries,
            scratch,
        ))
    }

    fn wire(&self) -> Result<()> {
        for short in ["node", "outside", "pod1", "pod2", "client"] {
            NetNs::create(&self.name(short))?;
        }
        let mut node = format!(
            "link add eth0 type veth peer name eth0 netns {}
             address add {NODE_IP}/24 dev eth0
             link set eth0 up
             route add default via 192.168.78.200
             link add seaway.vxlan address 02:00:00:00:00:01 mtu 1450 type vxlan external dstport 8472
             address add 10.244.1.0/32 dev seaway.vxlan
             link set seaway.vxlan up",
            self.name("outside")
        );
        for (i, (pod, address)) in PODS.iter().enumerate() {
            let link = format!("sw0000000000{i}");
            let netns = self.name(pod);
            node += &format!(
                "\nlink add {link} mtu 1450 type veth peer name eth0 netns {netns}
                 link set {link} address 02:00:00:00:01:01 up
                 route add {address}/32 dev {link} scope link"
            );
        }
        self.ip("node", &node)?;
        self.ip(
            "outside",
            "address add 192.168.78.200/24 dev eth0\nlink set eth0 up",
        )?;
        for (pod, address) in PODS {
            self.ip(
                pod,
                &format!(
                    "link set eth0 mtu 1450 up
                     address add {address}/32 dev eth0
                     route add 169.254.1.1 dev eth0 scope link
                     neigh add 169.254.1.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
                     route add default via 169.254.1.1 dev eth0"
                ),
            )?;
        }
        self.sysctl("net.ipv4.ip_forward", "1")
    }

    /// Sets a sysctl of the node.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.netns("node")?
            .run(|| seaway_kernel::sysctl::write(key, value))??;
        Ok(())
    }

    fn ip(&self, short: &str, batch: &str) -> Result<()> {
        let mut ip = Command::new("ip")
            .args(["-n", &self.name(short), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        let batch: String = batch.lines().map(|l| format!("{}\n", l.trim())).collect();
        if let Some(mut stdin) = ip.stdin.take() {
            stdin.write_all(batch.as_bytes())?;
        }
        ensure!(ip.wait()?.success(), "ip {batch}");
        Ok(())
    }

    /// The flags that say what of the kernel is this node's.
    fn kernel_flags(&self) -> Vec<String> {
        vec![
            format!("--cgroup-root={}", self.cgroup.display()),
            format!("--bpffs-root={}", self.bpffs.display()),
            format!("--run-dir={}", self.scratch.join("run").display()),
        ]
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--mode={}", self.mode),
            format!("--manifests={}", self.manifests().display()),
            "--hostname-override=n1".into(),
            "--cluster-cidr=10.244.0.0/16".into(),
        ];
        flags.extend(self.kernel_flags());
        flags
    }

    /// A one-shot command of the proxy, on the node.
    pub(crate) async fn command(&self, command: &str) -> Result<Finished> {
        let flags = match command {
            "cleanup" => self.kernel_flags(),
            _ => self.flags(),
        };
        let program = seaway_lab::topology::binaries()?.join("seaway-proxy");
        let args = std::iter::once(command.to_owned()).chain(flags);
        let finished = self.place("node")?.run(program, args).await?;
        ensure!(
            finished.code == Some(0),
            "{command}: exit {:?}: {}",
            finished.code,
            finished.stderr
        );
        Ok(finished)
    }

    /// Starts the daemon and waits until it is in sync.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.starts += 1;
        let child = Spawn::new(seaway_lab::topology::binaries()?.join("seaway-proxy"))
            .arg("run")
            .args(self.flags())
            .netns(&self.netns("node")?)
            .cgroup(self.cgroup.join("node"))
            .stdout(self.log_file())
            .stderr(self.log_file())
            .start()?;
        self.proxy = Some(child);
        self.logged(&["in sync"]).await
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.kill()?;
            proxy.wait()?;
        }
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.join(format!("proxy-{}.log", self.starts))
    }

    /// What the daemon has logged since its last start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits for a line of the running daemon's log with all these words.
    pub(crate) async fn logged(&self, words: &[&str]) -> Result<()> {
        let what = format!("a log line with {words:?}");
        eventually(&what, Duration::from_secs(10), async || {
            let log = self.log();
            let found = log
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)));
            if found { Ok(()) } else { Err(log) }
        })
        .await?;
        Ok(())
    }

    /// Rules and pins of the node.
    pub(crate) async fn trace(&self) -> Result<String> {
        let rules = trace::rules(Some(&self.netns("node")?)).await?;
        Ok(format!("{rules}{:?}", trace::names(&self.bpffs)))
    }
}

impl Drop for Stand {
    /// Best effort: a failure here would hide that of the test.
    fn drop(&mut self) {
        for mut child in self.servers.drain(..).chain(self.proxy.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let (Ok(binaries), Ok(node)) = (seaway_lab::topology::binaries(), self.netns("node")) {
            let cleanup = Spawn::new(binaries.join("seaway-proxy"))
                .arg("cleanup")
                .args(self.kernel_flags())
                .netns(&node)
                .stdout(self.scratch.join("cleanup.log"))
                .start();
            let _ = cleanup.map(|mut child| child.wait());
        }
        for short in ["node", "outside", "pod1", "pod2", "client"] {
            let _ = NetNs::delete(&self.name(short));
        }
        for cgroup in [&self.cgroup, &self.outside] {
            let _ = cgroup::kill(cgroup);
            let _ = cgroup::wait_empty(cgroup, Duration::from_secs(2));
            let _ = cgroup::delete(cgroup);
        }
        let _ = fs::remove_dir_all(&self.scratch);
    }
}
