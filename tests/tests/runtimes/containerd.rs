//! A containerd of its own for a node: its daemon in the node's namespace, its files below one directory.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use seaway_kernel::{Command, NetNs, Process, Signal, Spawn};
use seaway_lab::eventually;

use crate::cri::{Cri, Pod, PodConfig, Sandbox};
use crate::image::IMAGE;

/// For the daemon to come up, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The daemon, and what it has started; ended when dropped.
pub(crate) struct Containerd {
    pub(crate) cri: Cri,
    netns: NetNs,
    dir: PathBuf,
    /// Below every controller's root; containers are grouped there.
    cgroup: String,
    child: Child,
    /// Names of namespaces that it made.
    namespaces: Vec<String>,
}

impl Containerd {
    /// Starts it; it has the image when this returns. `conf` is where it finds lists of plugins, `bin` where plugins are.
    pub(crate) async fn start(
        netns: &NetNs,
        dir: &Path,
        conf: &Path,
        bin: &Path,
        image: &Path,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (socket, log) = (dir.join("containerd.sock"), dir.join("containerd.log"));
        let config = dir.join("config.toml");
        std::fs::write(&config, configuration(dir, conf, bin))?;
        // By the namespace alone: a new mount of /sys would hide the cgroups from runc.
        let mut child = Spawn::new("containerd")
            .arg("--config")
            .arg(&config)
            .netns(netns)
            .stdout(&log)
            .stderr(&log)
            .start()?;
        let up = eventually("containerd answers", PATIENCE, async || {
            match child.try_wait() {
                Ok(None) => Cri::connect(&socket).await,
                ended => bail!("it ended: {ended:?}"),
            }
        });
        let cri = match up.await {
            Ok(cri) => cri,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{error}\n{said}");
            }
        };
        let containerd = Self {
            cri,
            netns: netns.clone(),
            dir: dir.to_owned(),
            cgroup: format!("/seaway-test-{}", std::process::id()),
            child,
            namespaces: Vec::new(),
        };
        // One for its CRI, one for ctr.
        for namespace in ["k8s.io", "default"] {
            containerd
                .ctr(&["--namespace", namespace, "images", "import"])
                .arg("--snapshotter=native")
                .arg(image)
                .output()
                .await?;
        }
        Ok(containerd)
    }

    /// Runs a pod by its CRI.
    pub(crate) async fn run_pod(&mut self, wanted: PodConfig) -> Result<Pod> {
        let ran = self.cri.run_pod(&self.grouped(wanted)).await;
        let pod = ran.with_context(|| self.log())?;
        self.namespaces.push(pod.netns.clone());
        Ok(pod)
    }

    /// Runs a pod without asking for its network.
    pub(crate) async fn run_sandbox(&mut self, wanted: PodConfig) -> Result<Sandbox> {
        let ran = self.cri.run_sandbox(&self.grouped(wanted)).await;
        ran.with_context(|| self.log())
    }

    fn grouped(&self, wanted: PodConfig) -> PodConfig {
        PodConfig {
            cgroup: self.cgroup.clone(),
            ..wanted
        }
    }

    /// Runs as many pods at the same moment.
    pub(crate) async fn run_pods(&mut self, count: usize) -> Result<Vec<Pod>> {
        let pods = (0..count).map(|number| {
            let mut cri = self.cri.clone();
            let wanted = self.grouped(PodConfig {
                name: format!("many-{number}"),
                ..PodConfig::default()
            });
            async move { cri.run_pod(&wanted).await }
        });
        let ran = futures::future::join_all(pods).await;
        let pods: Result<Vec<Pod>> = ran.into_iter().collect();
        let pods = pods.with_context(|| self.log())?;
        self.namespaces
            .extend(pods.iter().map(|pod| pod.netns.clone()));
        Ok(pods)
    }

    /// Ends pods, all at the same moment.
    pub(crate) async fn end_pods(&self, pods: &[Pod]) -> Result<()> {
        let ends = pods.iter().map(|pod| {
            let mut cri = self.cri.clone();
            async move { cri.end(&pod.sandbox).await }
        });
        let ends = futures::future::join_all(ends).await;
        let ended: Result<Vec<()>> = ends.into_iter().collect();
        ended.with_context(|| self.log()).map(drop)
    }

    /// `ctr` on this daemon, to which arguments are added; in the node's namespace.
    pub(crate) fn ctr(&self, args: &[&str]) -> Command {
        Command::new("ctr")
            .arg(format!("--address={}", self.socket().display()))
            .args(args)
            .netns(&self.netns)
            .timeout(PATIENCE)
    }

    /// `ctr run --cni` of a command, in the foreground, so that the network goes with it. `ctr` calls the plugin itself, and
    /// reads only `/etc/cni/net.d`: it gets these directories there in a mount namespace of its own.
    pub(crate) fn ctr_run_cni(
        &self,
        id: &str,
        conf: &Path,
        bin: &Path,
        command: &[&str],
        log: &Path,
    ) -> Result<Child> {
        let script = "set -e
            mount --make-rprivate /
            mount -t tmpfs seaway-test /etc
            mkdir -p /etc/cni/net.d
            mount --bind \"$1\" /etc/cni/net.d
            mount -t tmpfs seaway-test /opt
            mkdir -p /opt/cni/bin
            mount --bind \"$2\" /opt/cni/bin
            mount --bind \"$2\" /usr/lib/cni
            shift 2
            exec \"$@\"";
        let child = Spawn::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(conf)
            .arg(bin)
            .arg("ctr")
            .arg(format!("--address={}", self.socket().display()))
            .args(["run", "--rm", "--cni", "--snapshotter=native"])
            .arg(format!("--cgroup={}/{id}", self.cgroup))
            .args([IMAGE, id])
            .args(command)
            .netns(&self.netns)
            .stdout(log)
            .stderr(log)
            .start()?;
        Ok(child)
    }

    /// The processes in the network namespace of a pod.
    pub(crate) fn pids_in(&self, pod: &Pod) -> Result<Vec<u32>> {
        let wanted = NetNs::named(&pod.netns)?;
        let all = std::fs::read_dir("/proc")?.flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let inside = pids.filter(|pid| {
            let path = format!("/proc/{pid}/ns/net");
            let own = NetNs::open(Path::new(&path));
            own.is_ok_and(|own| own.is_same(&wanted).unwrap_or(false))
        });
        Ok(inside.collect())
    }

    /// What it logged of late.
    pub(crate) fn log(&self) -> String {
        seaway_tests::bench::one_node::wiring::tail(&self.dir.join("containerd.log"))
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Ends it after all of its pods have ended; nothing of it may be left.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.terminate()?;
        let shims = self.processes();
        ensure!(shims.is_empty(), "processes are left: {shims:?}");
        let mounts = self.mounts();
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        for namespace in &self.namespaces {
            let named = NetNs::list()?.contains(namespace);
            ensure!(!named, "namespace {namespace} is left");
        }
        Ok(())
    }

    fn terminate(&mut self) -> Result<()> {
        if let Some(process) = Process::open(self.child.id())? {
            process.signal(Signal::Terminate)?;
            if !process.wait_exit(PATIENCE)? {
                process.signal(Signal::Kill)?;
            }
        }
        self.child.wait()?;
        Ok(())
    }

    /// Its shims, known by the address that they are given, and their children.
    fn processes(&self) -> Vec<u32> {
        let address = self.socket().display().to_string();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut found = Vec::new();
        for pid in pids {
            let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(&address) {
                let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
                let children = children.unwrap_or_default();
                found.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
                found.push(pid);
            }
        }
        found
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let mut points: Vec<PathBuf> = points
            .map(PathBuf::from)
            .filter(|path| path.starts_with(&self.dir))
            .collect();
        points.reverse();
        points
    }
}

impl Drop for Containerd {
    /// After a failure: nothing of it stays, whatever state it is in. Finds nothing after a regular end.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.processes() {
            if let Ok(Some(process)) = Process::open(pid) {
                let _ = process.signal(Signal::Kill);
                let _ = process.wait_exit(Duration::from_secs(5));
            }
        }
        for mount in self.mounts() {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
        for namespace in &self.namespaces {
            let _ = NetNs::delete(namespace);
        }
        let controllers = std::fs::read_dir("/sys/fs/cgroup");
        for controller in controllers.into_iter().flatten().flatten() {
            let group = controller.path().join(self.cgroup.trim_start_matches('/'));
            let _ = seaway_kernel::cgroup::delete(&group);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Debian's containerd 1.6. A negative `oom_score_adj` is refused where the capability for it is missing, and then runc
/// dies without a word: `restrict_oom_score_adj`. Snapshots are copies: the directory may be on an overlay itself.
fn configuration(dir: &Path, conf: &Path, bin: &Path) -> String {
    let dir = dir.display();
    format!(
        "version = 2
root = '{dir}/root'
state = '{dir}/state'
disabled_plugins = ['io.containerd.internal.v1.opt', 'io.containerd.snapshotter.v1.aufs', 'io.containerd.snapshotter.v1.btrfs',
    'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.zfs', 'io.containerd.snapshotter.v1.overlayfs',
    'io.containerd.tracing.processor.v1.otlp', 'io.containerd.internal.v1.tracing']
[grpc]
address = '{dir}/containerd.sock'
[ttrpc]
address = '{dir}/containerd.sock.ttrpc'
[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = '{IMAGE}'
restrict_oom_score_adj = true
[plugins.'io.containerd.grpc.v1.cri'.containerd]
snapshotter = 'native'
default_runtime_name = 'runc'
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.grpc.v1.cri'.cni]
bin_dir = '{}'
conf_dir = '{}'
",
        bin.display(),
        conf.display()
    )
}
