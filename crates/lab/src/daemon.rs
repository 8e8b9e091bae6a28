//! The daemons of a lab: how each is started, found again, and ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use seaway_kernel::{NetNs, Process, ProcessId, Signal, Spawn, cgroup};

use crate::record::{self, Record};
use crate::topology::api_address;
use crate::{LabConfig, LabError, LabName, NodeConfig};

/// How long a daemon gets to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Lines of a log that an error shows.
const TAIL: usize = 15;

/// One process of the cluster's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Daemon {
    /// `seaway server`: API server and controllers.
    Server,
    /// `seaway agent` of a node.
    Agent(String),
    /// `seaway-overlay` of a node.
    Overlay(String),
    /// `seaway-proxy` of a node.
    Proxy(String),
}

impl Daemon {
    /// The three of a node.
    pub fn of_node(node: &str) -> [Self; 3] {
        [
            Self::Agent(node.into()),
            Self::Overlay(node.into()),
            Self::Proxy(node.into()),
        ]
    }

    /// `server`, `n1.proxy`.
    pub fn id(&self) -> String {
        match self {
            Self::Server => "server".into(),
            Self::Agent(node) => format!("{node}.agent"),
            Self::Overlay(node) => format!("{node}.overlay"),
            Self::Proxy(node) => format!("{node}.proxy"),
        }
    }

    /// Where it logs.
    pub fn log(&self, lab: &LabName) -> PathBuf {
        lab.dir().join("logs").join(format!("{}.log", self.id()))
    }

    /// The process if it runs.
    pub fn process(&self, lab: &LabName) -> Result<Option<Process>, LabError> {
        match record::read::<ProcessId>(&self.pid_file(lab))? {
            Some(id) => Ok(Process::find(id)?),
            None => Ok(None),
        }
    }

    /// Resident memory in KiB, if it runs.
    pub fn resident_kib(&self, lab: &LabName) -> Result<Option<u64>, LabError> {
        let Some(process) = self.process(lab)? else {
            return Ok(None);
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id().pid));
        Ok(status.ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        }))
    }

    pub(crate) fn start(&self, record: &Record) -> Result<(), LabError> {
        let lab = &record.config.name;
        if self.process(lab)?.is_some() {
            return Ok(());
        }
        let log = self.log(lab);
        let (netns, cgroup) = self.where_it_runs(lab)?;
        cgroup::create(&cgroup)?;
        let program = record.config.binaries.join(self.program());
        let child = Spawn::new(program)
            .args(self.args(record)?)
            .env_clear()
            .env("PATH", search_path())
            .env("RUST_LOG", &record.config.log_filter)
            .env("RUST_BACKTRACE", "1")
            .cwd("/")
            .netns(&netns)
            .cgroup(&cgroup)
            .stdout(&log)
            .stderr(&log)
            .start()?;
        // A child that ended at once is a zombie until somebody asks for it; it has a start time all the same.
        let started = Process::open(child.id())?;
        reap(child);
        let Some(process) = started else {
            return Err(self.died(lab));
        };
        record::write(&self.pid_file(lab), &process.id())
    }

    /// Asks it to end (SIGTERM), and waits.
    pub(crate) async fn stop(&self, lab: &LabName) -> Result<(), LabError> {
        self.end(lab, Signal::Terminate).await
    }

    /// Ends it with no chance to do anything about it (SIGKILL).
    pub(crate) async fn kill(&self, lab: &LabName) -> Result<(), LabError> {
        self.end(lab, Signal::Kill).await
    }

    async fn end(&self, lab: &LabName, signal: Signal) -> Result<(), LabError> {
        let Some(process) = self.process(lab)? else {
            return Ok(());
        };
        process.signal(signal)?;
        match tokio::time::timeout(GRACE, process.exited()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => Err(LabError::TimedOut {
                what: format!("the end of {} after {signal:?}", self.id()),
                limit: GRACE,
                last: tail(&self.log(lab)),
            }),
        }
    }

    pub(crate) fn died(&self, lab: &LabName) -> LabError {
        let log = self.log(lab);
        LabError::Died {
            daemon: self.id(),
            tail: tail(&log),
            log,
        }
    }

    fn pid_file(&self, lab: &LabName) -> PathBuf {
        lab.dir()
            .join("daemons")
            .join(format!("{}.json", self.id()))
    }

    fn program(&self) -> &'static str {
        match self {
            Self::Server | Self::Agent(_) => "seaway",
            Self::Overlay(_) => "seaway-overlay",
            Self::Proxy(_) => "seaway-proxy",
        }
    }

    fn where_it_runs(&self, lab: &LabName) -> Result<(NetNs, PathBuf), LabError> {
        let root = lab.cgroup()?;
        Ok(match self {
            // Among the nodes, so that it can ask their agents for logs.
            Self::Server => (NetNs::named(&lab.fabric_netns())?, root.join("server")),
            Self::Agent(node) | Self::Overlay(node) | Self::Proxy(node) => (
                NetNs::named(&lab.node_netns(node))?,
                root.join(node).join("system"),
            ),
        })
    }

    fn args(&self, record: &Record) -> Result<Vec<String>, LabError> {
        let config = &record.config;
        Ok(match self {
            Self::Server => server_args(record),
            Self::Agent(node) => agent_args(config, node)?,
            Self::Overlay(node) => overlay_args(config, node),
            Self::Proxy(node) => proxy_args(config, node)?,
        })
    }
}

/// The files of one node.
pub(crate) struct NodeDirs(PathBuf);

impl NodeDirs {
    pub(crate) fn new(lab: &LabName, node: &str) -> Self {
        Self(lab.dir().join(node))
    }

    pub(crate) fn root(self) -> PathBuf {
        self.0
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    pub(crate) fn cni_bin(&self) -> PathBuf {
        self.0.join("cni-bin")
    }

    /// All that must exist before a daemon starts.
    pub(crate) fn all(&self) -> [PathBuf; 4] {
        [
            self.cni_bin(),
            self.0.join("cni-conf"),
            self.0.join("run"),
            self.0.join("state"),
        ]
    }

    fn flag(&self, name: &str, directory: &str) -> String {
        format!("--{name}={}", self.0.join(directory).display())
    }
}

/// The data directory of the API server.
pub(crate) fn server_data(lab: &LabName) -> PathBuf {
    lab.dir().join("server")
}

fn server_args(record: &Record) -> Vec<String> {
    let config = &record.config;
    let port = record.api_port;
    // The server lives among the nodes; kubectl lives where we are. It opens the socket while we wait for it.
    let here = format!("/proc/{}/ns/net", std::process::id());
    vec![
        "server".into(),
        format!("--data-dir={}", server_data(&config.name).display()),
        format!("--listen={}:6443", api_address()),
        format!("--listen=127.0.0.1:{port}@{here}"),
        format!("--advertise-address={}:6443", api_address()),
        format!("--cluster-cidr={}", config.cluster_cidr()),
        "--node-cidr-mask-size=24".into(),
        format!("--service-cidr={}", config.service_cidr),
    ]
}

fn agent_args(config: &LabConfig, name: &str) -> Result<Vec<String>, LabError> {
    let dirs = NodeDirs::new(&config.name, name);
    let cgroup = config.name.cgroup()?.join(name);
    Ok(vec![
        "agent".into(),
        format!("--kubeconfig={}", dirs.kubeconfig().display()),
        format!("--node-name={name}"),
        format!("--node-ip={}", node(config, name)?.address()),
        format!("--cgroup-root={}", cgroup.display()),
        format!("--netns-prefix={}", config.name.pod_netns_prefix(name)),
        dirs.flag("cni-conf-dir", "cni-conf"),
        dirs.flag("cni-bin-dir", "cni-bin"),
        dirs.flag("run-dir", "run"),
        dirs.flag("state-dir", "state"),
    ])
}

fn overlay_args(config: &LabConfig, node: &str) -> Vec<String> {
    let dirs = NodeDirs::new(&config.name, node);
    vec![
        "run".into(),
        format!("--kubeconfig={}", dirs.kubeconfig().display()),
        format!("--node-name={node}"),
        format!("--cluster-cidr={}", config.cluster_cidr()),
        dirs.flag("cni-conf-dir", "cni-conf"),
        dirs.flag("cni-bin-dir", "cni-bin"),
        dirs.flag("run-dir", "run"),
        dirs.flag("state-dir", "state"),
    ]
}

fn proxy_args(config: &LabConfig, node: &str) -> Result<Vec<String>, LabError> {
    let mut args = vec!["run".to_owned()];
    args.extend(proxy_node_flags(config, node)?);
    args.extend(config.proxy_flags.iter().cloned());
    Ok(args)
}

/// The flags that `run`, `plan` and `dump` of a node's proxy share.
pub(crate) fn proxy_node_flags(config: &LabConfig, name: &str) -> Result<Vec<String>, LabError> {
    let dirs = NodeDirs::new(&config.name, name);
    let mut flags = vec![
        format!("--mode={}", node(config, name)?.mode),
        format!("--kubeconfig={}", dirs.kubeconfig().display()),
        format!("--hostname-override={name}"),
        format!("--cluster-cidr={}", config.cluster_cidr()),
    ];
    flags.extend(proxy_kernel_flags(&config.name, name)?);
    Ok(flags)
}

/// The flags that `cleanup` and `check` take.
pub(crate) fn proxy_kernel_flags(lab: &LabName, node: &str) -> Result<[String; 3], LabError> {
    let cgroup = lab.cgroup()?.join(node);
    Ok([
        format!("--cgroup-root={}", cgroup.display()),
        format!("--bpffs-root={}", lab.bpffs(node).display()),
        NodeDirs::new(lab, node).flag("run-dir", "run"),
    ])
}

fn node<'a>(config: &'a LabConfig, name: &str) -> Result<&'a NodeConfig, LabError> {
    let found = config.nodes.iter().find(|node| node.name == name);
    found.ok_or_else(|| LabError::Invalid(format!("there is no node {name}")))
}

/// `PATH` with the directories where Debian keeps iptables and ip.
pub(crate) fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Waits for the child on a thread of its own, so that it never stays a zombie of ours.
fn reap(mut child: std::process::Child) {
    std::thread::spawn(move || {
        // An error would mean that it was waited for already.
        let _ = child.wait();
    });
}

/// The last lines of a log, indented.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    if last.is_empty() {
        return format!("  ({} is empty)", log.display());
    }
    last.iter().map(|line| format!("  {line}\n")).collect()
}
