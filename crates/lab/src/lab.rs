//! A running lab.

use std::path::PathBuf;
use std::time::Duration;

use seaway_kernel::NetNs;

use crate::daemon::{NodeDirs, proxy_kernel_flags};
use crate::health;
use crate::record::Record;
use crate::{
    Daemon, Finished, LabConfig, LabError, LabName, Mode, Place, down, eventually, pods, up,
};

/// How long a daemon that was started again gets to be in sync.
const RESYNC: Duration = Duration::from_secs(30);

/// A handle on a lab. Dropping it leaves the lab running, unless it came from [`Lab::up_for_test`].
pub struct Lab {
    pub(crate) record: Record,
    down_on_drop: bool,
}

impl Lab {
    /// Brings a lab up and waits until every daemon is in sync. If that fails, nothing is left of it.
    pub async fn up(config: LabConfig) -> Result<Self, LabError> {
        let record = up::up(config).await?;
        Ok(Self {
            record,
            down_on_drop: false,
        })
    }

    /// The same, and takes it down when the handle is dropped.
    pub async fn up_for_test(config: LabConfig) -> Result<Self, LabError> {
        let mut lab = Self::up(config).await?;
        lab.down_on_drop = true;
        Ok(lab)
    }

    /// Finds a lab that runs.
    pub fn open(name: &LabName) -> Result<Self, LabError> {
        Ok(Self {
            record: Record::load(name)?,
            down_on_drop: false,
        })
    }

    /// Takes everything of it away, and verifies that.
    pub async fn down(mut self) -> Result<(), LabError> {
        self.down_on_drop = false;
        let name = self.name().clone();
        let gone = tokio::task::spawn_blocking(move || down::down(&name));
        gone.await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            .map(drop)
    }

    /// Its name.
    pub fn name(&self) -> &LabName {
        &self.record.config.name
    }

    /// What it consists of.
    pub fn config(&self) -> &LabConfig {
        &self.record.config
    }

    /// Whether every daemon was in sync once.
    pub fn came_up(&self) -> bool {
        self.record.ready
    }

    /// The names of its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.record.config.nodes.iter().map(|n| n.name.as_str())
    }

    /// The kubeconfig of its administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.name().dir().join("kubeconfig")
    }

    /// A node itself: its namespace, and the cgroup of its daemons.
    pub fn node(&self, node: &str) -> Result<Place, LabError> {
        self.config().index(node)?;
        let cgroup = self.name().cgroup()?.join(node).join("system");
        self.place(node.into(), &self.name().node_netns(node), cgroup)
    }

    /// The client outside of the cluster.
    pub fn outside(&self) -> Result<Place, LabError> {
        let cgroup = self.name().cgroup()?.join("ext");
        self.place("outside".into(), &self.name().outside_netns(), cgroup)
    }

    /// A running pod, as `NAME` (namespace default) or `NAMESPACE/NAME`.
    pub async fn pod(&self, pod: &str) -> Result<Place, LabError> {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        let found = pods::locate(self, namespace, name).await?;
        Ok(Place {
            label: pod.to_owned(),
            netns: found.netns,
            cgroup: found.cgroup,
            binaries: self.record.config.binaries.clone(),
            scratch: self.name().dir().join("scratch"),
        })
    }

    /// Starts a daemon (again) and waits until it is in sync.
    pub async fn start(&self, daemon: &Daemon) -> Result<(), LabError> {
        daemon.start(&self.record)?;
        self.in_sync(daemon).await
    }

    /// Ends a daemon with SIGTERM.
    pub async fn stop(&self, daemon: &Daemon) -> Result<(), LabError> {
        daemon.stop(self.name()).await
    }

    /// Ends a daemon with SIGKILL.
    pub async fn kill(&self, daemon: &Daemon) -> Result<(), LabError> {
        daemon.kill(self.name()).await
    }

    /// Changes the mode of a node by restarting its proxy with the other flag.
    pub async fn switch_mode(&mut self, node: &str, mode: Mode) -> Result<(), LabError> {
        let config = self.record.config.clone().mode(node, mode)?;
        self.record.config = config;
        self.record.save()?;
        let proxy = Daemon::Proxy(node.to_owned());
        self.stop(&proxy).await?;
        self.start(&proxy).await
    }

    /// Runs `seaway-proxy cleanup` on a node; its daemon must have ended.
    pub async fn proxy_cleanup(&self, node: &str) -> Result<Finished, LabError> {
        self.proxy(node, &["cleanup"]).await
    }

    /// Runs a subcommand of `seaway-proxy` on a node, told where the kernel has what is the node's.
    pub async fn proxy(&self, node: &str, args: &[&str]) -> Result<Finished, LabError> {
        let program = self.record.config.binaries.join("seaway-proxy");
        let flags = proxy_kernel_flags(self.name(), node)?;
        let args = args.iter().map(|arg| (*arg).to_owned()).chain(flags);
        self.node(node)?.run(program, args).await
    }

    /// Waits until a daemon says that it is in sync.
    pub async fn in_sync(&self, daemon: &Daemon) -> Result<(), LabError> {
        let lab = self.name();
        let what = format!("{} in sync", daemon.id());
        match daemon {
            Daemon::Server => up::api_answers(&self.record).await,
            Daemon::Agent(node) => up::node_ready(&self.record, node).await,
            Daemon::Overlay(node) | Daemon::Proxy(node) => {
                let port = match daemon {
                    Daemon::Proxy(_) => health::PROXY,
                    _ => health::OVERLAY,
                };
                let netns = NetNs::named(&lab.node_netns(node))?;
                eventually(&what, RESYNC, async || health::healthz(&netns, port).await)
                    .await
                    .map_err(|error| match daemon.process(lab) {
                        Ok(None) => daemon.died(lab),
                        _ => error,
                    })
            }
        }
    }

    /// A client of its API server, as its administrator.
    pub async fn client(&self) -> Result<kube::Client, LabError> {
        up::client(&self.record).await
    }

    /// The directory of a node's files: `cni-conf`, `cni-bin`, `run`, `state`.
    pub fn node_files(&self, node: &str) -> PathBuf {
        NodeDirs::new(self.name(), node).root()
    }

    fn place(&self, label: String, netns: &str, cgroup: PathBuf) -> Result<Place, LabError> {
        seaway_kernel::cgroup::create(&cgroup)?;
        Ok(Place {
            label,
            netns: NetNs::named(netns)?,
            cgroup,
            binaries: self.record.config.binaries.clone(),
            scratch: self.name().dir().join("scratch"),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.down_on_drop
            && let Err(error) = down::down(self.name())
        {
            // A panic here would hide the failure that is being unwound; the next run would say "exists already".
            eprintln!("{error}");
        }
    }
}
