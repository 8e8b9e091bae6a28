//! Starting a program that stays: daemons and the processes of pods.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::libc;
use nix::sched::{CloneFlags, setns};

use crate::{Error, NetNs};

/// A detached child; build it, then call [`Spawn::start`]. It gets a session of its own, so that a Ctrl-C meant for us
/// does not reach it, and it outlives us; of our open files it has none.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    clear_env: bool,
    cwd: Option<PathBuf>,
    netns: Option<NetNs>,
    cgroup: Option<PathBuf>,
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
}

impl Spawn {
    /// Starts to describe a child that runs `program` (searched in `PATH` unless it has a slash).
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            clear_env: false,
            cwd: None,
            netns: None,
            cgroup: None,
            stdout: None,
            stderr: None,
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

    /// The directory it starts in.
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.cwd = Some(path.into());
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

    /// Appends standard output to this file; discarded by default.
    pub fn stdout(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdout = Some(path.into());
        self
    }

    /// Appends standard error to this file; discarded by default.
    pub fn stderr(mut self, path: impl Into<PathBuf>) -> Self {
        self.stderr = Some(path.into());
        self
    }

    /// Starts the child. A missing program, directory or cgroup is an error here, not an exit code later.
    pub fn start(self) -> Result<Child, Error> {
        let cgroup = self.cgroup.as_deref().map(open_procs).transpose()?;
        let mut command = Command::new(&self.program);
        if self.clear_env {
            command.env_clear();
        }
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(open_log(self.stdout.as_deref())?)
            .stderr(open_log(self.stderr.as_deref())?);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        detach_before_exec(&mut command);
        enter_before_exec(&mut command, self.netns, cgroup);
        command
            .spawn()
            .map_err(|e| Error::io("start", self.program.display().to_string(), e))
    }
}

pub(crate) fn open_procs(cgroup: &Path) -> Result<OwnedFd, Error> {
    let file = cgroup.join("cgroup.procs");
    OpenOptions::new()
        .write(true)
        .open(&file)
        .map(OwnedFd::from)
        .map_err(|e| Error::io("open", file.display().to_string(), e))
}

fn open_log(path: Option<&Path>) -> Result<Stdio, Error> {
    let Some(path) = path else {
        return Ok(Stdio::null());
    };
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| Error::io("open", path.display().to_string(), e))?;
    Ok(file.into())
}

/// Makes the child a session leader, and keeps from it what our caller left open for us: a pipe whose reader would wait for
/// the child's end, a lock that nobody would get before.
#[expect(unsafe_code, reason = "code between fork and exec")]
fn detach_before_exec(command: &mut Command) {
    let detach = || {
        // SAFETY: only flags of descriptors change. A kernel without it (before Linux 5.11) says so and leaves them.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                FIRST_OF_OTHERS,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        Ok(nix::unistd::setsid().map(drop)?)
    };
    // SAFETY: close_range and setsid are async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(detach);
    }
}

/// Behind standard input, output and error.
const FIRST_OF_OTHERS: libc::c_uint = 3;

/// Makes the child join a cgroup and enter a network namespace right before its program starts. The descriptors live
/// as long as the command.
#[expect(unsafe_code, reason = "code between fork and exec")]
pub(crate) fn enter_before_exec(
    command: &mut Command,
    netns: Option<NetNs>,
    cgroup_procs: Option<OwnedFd>,
) {
    let enter = move || -> io::Result<()> {
        if let Some(procs) = &cgroup_procs {
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
