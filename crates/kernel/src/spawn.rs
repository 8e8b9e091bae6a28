//! Starting a program that stays: daemons and the processes of pods.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::libc;

use crate::Error;
use crate::program::Program;

/// A detached child; build it, then call [`Spawn::start`]. It gets a session of its own, so that a Ctrl-C meant for us
/// does not reach it, and it outlives us; of our open files it has none.
pub type Spawn = Program<Detached>;

/// Of a program that stays: where it starts, and where its output goes.
#[derive(Debug, Default)]
pub struct Detached {
    cwd: Option<PathBuf>,
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
}

impl Spawn {
    /// Starts to describe a child that runs `program` (searched in `PATH` unless it has a slash).
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self::described(program, Detached::default())
    }

    /// The directory it starts in.
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.how.cwd = Some(path.into());
        self
    }

    /// Appends standard output to this file; discarded by default.
    pub fn stdout(mut self, path: impl Into<PathBuf>) -> Self {
        self.how.stdout = Some(path.into());
        self
    }

    /// Appends standard error to this file; discarded by default.
    pub fn stderr(mut self, path: impl Into<PathBuf>) -> Self {
        self.how.stderr = Some(path.into());
        self
    }

    /// Starts the child. A missing program, directory or cgroup is an error here, not an exit code later.
    pub fn start(self) -> Result<Child, Error> {
        let mut command = self.to_std()?;
        command
            .stdin(Stdio::null())
            .stdout(open_log(self.how.stdout.as_deref())?)
            .stderr(open_log(self.how.stderr.as_deref())?);
        if let Some(cwd) = &self.how.cwd {
            command.current_dir(cwd);
        }
        detach_before_exec(&mut command);
        command
            .spawn()
            .map_err(|e| Error::io("start", self.name(), e))
    }
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
