//! What is to be run and where, whether it is waited for ([`crate::Command`]) or stays ([`crate::Spawn`]).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::{Error, NetNs};

/// A program with arguments, environment, namespace and cgroup. As text: its command line.
#[derive(Debug)]
pub struct Program<How> {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    clear_env: bool,
    netns: Option<NetNs>,
    cgroup: Option<PathBuf>,
    pub(crate) how: How,
}

impl<How> Program<How> {
    pub(crate) fn described(program: impl AsRef<OsStr>, how: How) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            clear_env: false,
            netns: None,
            cgroup: None,
            how,
        }
    }

    /// Appends one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment instead of ours.
    pub fn env_clear(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// The network namespace it runs in; the calling thread's by default.
    pub fn netns(mut self, netns: &NetNs) -> Self {
        self.netns = Some(netns.clone());
        self
    }

    /// The cgroup (version 2) that it joins before its program starts, so that no socket is ever made outside of it.
    pub fn cgroup(mut self, path: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(path.into());
        self
    }

    /// The program, as it was given.
    pub(crate) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// The same for the standard library. It is an error if there is no such cgroup.
    pub(crate) fn to_std(&self) -> Result<Command, Error> {
        let mut command = Command::new(&self.program);
        if self.clear_env {
            command.env_clear();
        }
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(k, v)| (k, v)));
        let procs = self.cgroup.as_deref().map(open_procs).transpose()?;
        if self.netns.is_some() || procs.is_some() {
            enter_before_exec(&mut command, self.netns.clone(), procs);
        }
        Ok(command)
    }
}

impl<How> fmt::Display for Program<How> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program.to_string_lossy())?;
        for arg in &self.args {
            write!(f, " {}", arg.to_string_lossy())?;
        }
        Ok(())
    }
}

fn open_procs(cgroup: &Path) -> Result<OwnedFd, Error> {
    let file = cgroup.join("cgroup.procs");
    OpenOptions::new()
        .write(true)
        .open(&file)
        .map(OwnedFd::from)
        .map_err(|e| Error::io("open", file.display().to_string(), e))
}

/// Makes the child join a cgroup and enter a network namespace right before its program starts. The descriptors live
/// as long as the command.
#[expect(unsafe_code, reason = "code between fork and exec")]
fn enter_before_exec(command: &mut Command, netns: Option<NetNs>, procs: Option<OwnedFd>) {
    let enter = move || -> io::Result<()> {
        if let Some(procs) = &procs {
            // "0" stands for the writing process (cgroups(7)).
            nix::unistd::write(procs, b"0")?;
        }
        if let Some(netns) = &netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    };
    // SAFETY: write and setns are system calls without locks, and nothing is allocated.
    unsafe {
        command.pre_exec(enter);
    }
}
