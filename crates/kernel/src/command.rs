//! Running a program for its answer: input, time limit, and an error that shows what it said.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;

use crate::program::Program;

/// The time a program gets unless [`Command::timeout`] says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A program run to its end; build it, then call [`Command::output`].
pub type Command = Program<Awaited>;

/// Of a program that is run to its end: what it reads, and how long it may take.
#[derive(Debug)]
pub struct Awaited {
    stdin: Vec<u8>,
    timeout: Duration,
}

/// What a program that exited with 0 printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same without a copy: some programs print megabytes.
    pub fn into_text(self) -> String {
        String::from_utf8(self.stdout)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is not installed.
    #[error("{program} is not installed (not found in PATH)")]
    Missing { program: String },
    /// It could not be started.
    #[error("cannot run `{command}`: {cause}")]
    Spawn { command: String, cause: io::Error },
    /// It ran, and said no.
    #[error("`{command}` failed ({status}): {}", said(stderr, stdout))]
    Failed {
        program: String,
        command: String,
        status: ExitStatus,
        stdout: Vec<u8>,
        stderr: String,
    },
    /// It took too long and was killed, with its children.
    #[error("`{command}` did not finish within {limit:?} and was killed")]
    TimedOut { command: String, limit: Duration },
}

impl Command {
    /// Starts to describe a run of `program` (searched in `PATH` unless it has a slash).
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let awaited = Awaited {
            stdin: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
        };
        Self::described(program, awaited)
    }

    /// What it reads on standard input; nothing by default.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.how.stdin = bytes.into();
        self
    }

    /// The time limit; 30 seconds by default.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.how.timeout = limit;
        self
    }

    /// Runs the program to its end. Must be called inside a tokio runtime. When the future is dropped, the program is
    /// killed.
    pub async fn output(self) -> Result<Output, CommandError> {
        let command = self.to_string();
        let program = self.name();
        let mut child = self.start(&command)?;
        // The group outlives the leader when it left children behind; its id cannot be reused while one lives.
        let mut group = Group(child.id());
        let input = child.stdin.take();
        let Awaited { stdin, timeout } = self.how;
        let feed = async move {
            if let Some(mut pipe) = input {
                // A program may exit without reading everything; its status and stderr then say why.
                let _ = pipe.write_all(&stdin).await;
            }
        };
        let run = async {
            let (output, ()) = tokio::join!(child.wait_with_output(), feed);
            output
        };
        let Ok(finished) = tokio::time::timeout(timeout, run).await else {
            return Err(CommandError::TimedOut {
                command,
                limit: timeout,
            });
        };
        group.0 = None;
        let output = finished.map_err(|cause| CommandError::Spawn {
            command: command.clone(),
            cause,
        })?;
        if !output.status.success() {
            return Err(CommandError::Failed {
                program,
                command,
                status: output.status,
                stdout: output.stdout,
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        Ok(Output {
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    fn start(&self, command: &str) -> Result<tokio::process::Child, CommandError> {
        let inner = self.to_std().map_err(|error| CommandError::Spawn {
            command: command.to_owned(),
            cause: io::Error::other(error),
        })?;
        tokio::process::Command::from(inner)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| match cause.kind() {
                io::ErrorKind::NotFound => CommandError::Missing {
                    program: self.name(),
                },
                _ => CommandError::Spawn {
                    command: command.to_owned(),
                    cause,
                },
            })
    }
}

/// Kills the process group when dropped before the program finished.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Gone already: just what we want.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

fn said(stderr: &str, stdout: &[u8]) -> String {
    let text = if stderr.trim().is_empty() {
        String::from_utf8_lossy(stdout).into_owned()
    } else {
        stderr.to_owned()
    };
    match text.trim() {
        "" => "it printed nothing".into(),
        text => text.to_owned(),
    }
}
