//! Somewhere in a lab where programs run: a pod, a node, or outside of the cluster.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::Duration;

use seaway_kernel::{Command, CommandError, NetNs};

use crate::LabError;
use crate::traffic::{Attempt, Load, Summary, Transport};

/// A network namespace and a cgroup: what is started in here sees what any process in here sees, in every mode.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) label: String,
    pub(crate) netns: NetNs,
    pub(crate) cgroup: PathBuf,
    pub(crate) binaries: PathBuf,
    pub(crate) scratch: PathBuf,
}

/// A program that ran to its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Runs a program, whatever it answers.
    pub(crate) async fn of(command: Command) -> Result<Self, LabError> {
        match command.output().await {
            Ok(output) => Ok(Self {
                code: Some(0),
                stdout: output.text(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            Err(CommandError::Failed {
                status,
                stdout,
                stderr,
                ..
            }) => Ok(Self {
                code: status.code(),
                stdout: String::from_utf8_lossy(&stdout).into_owned(),
                stderr,
            }),
            Err(error) => Err(error.into()),
        }
    }
}

impl Place {
    /// A place that is part of no lab. `scratch` is a directory for what a load writes.
    pub fn new(
        label: impl Into<String>,
        netns: NetNs,
        cgroup: PathBuf,
        binaries: PathBuf,
        scratch: PathBuf,
    ) -> Self {
        Self {
            label: label.into(),
            netns,
            cgroup,
            binaries,
            scratch,
        }
    }

    /// What it is called in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its network namespace.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The cgroup that programs join.
    pub fn cgroup(&self) -> &std::path::Path {
        &self.cgroup
    }

    /// Runs a program to its end, whatever its exit code.
    pub async fn run<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished, LabError> {
        self.finish(Command::new(program).args(args)).await
    }

    /// Asks `count` times, 5 ms apart, each time on a new connection.
    pub async fn probe(
        &self,
        transport: Transport,
        target: SocketAddr,
        count: u64,
    ) -> Result<Summary, LabError> {
        let limit = Duration::from_millis(2000);
        Ok(self.attempts(transport, target, count, limit).await?.1)
    }

    /// The same, with each attempt, and a time limit for each.
    pub async fn attempts(
        &self,
        transport: Transport,
        target: SocketAddr,
        count: u64,
        limit: Duration,
    ) -> Result<(Vec<Attempt>, Summary), LabError> {
        let command = Command::new(self.binaries.join("seaway"))
            .args(["probe", transport.as_str(), &target.to_string()])
            .args(["--count", &count.to_string(), "--interval-ms", "5"])
            .args(["--timeout-ms", &limit.as_millis().to_string()])
            .timeout(limit * 2 + Duration::from_millis(count * 20) + Duration::from_secs(10));
        let finished = self.finish(command).await?;
        crate::traffic::load::parse(&finished.stdout).ok_or_else(|| {
            LabError::Invalid(format!("probe in {}: {}", self.label, finished.stderr))
        })
    }

    /// Starts a load that goes on until it is stopped: a new connection each `interval`.
    pub fn load(
        &self,
        transport: Transport,
        target: SocketAddr,
        interval: Duration,
    ) -> Result<Load, LabError> {
        Load::start(self, transport, target, interval)
    }

    /// Becomes `argv` in here; returns only if that fails.
    pub fn enter(&self, argv: &[String]) -> LabError {
        let Some((program, args)) = argv.split_first() else {
            return LabError::Invalid("no command to run".into());
        };
        let procs = self.cgroup.join("cgroup.procs");
        if let Err(cause) = std::fs::write(&procs, "0") {
            return LabError::file("join", procs)(cause);
        }
        match self.netns.enter() {
            Err(error) => error.into(),
            Ok(_inside) => {
                let cause = std::process::Command::new(program).args(args).exec();
                LabError::file("run", program)(cause)
            }
        }
    }

    async fn finish(&self, command: Command) -> Result<Finished, LabError> {
        Finished::of(command.netns(&self.netns).cgroup(&self.cgroup)).await
    }
}
