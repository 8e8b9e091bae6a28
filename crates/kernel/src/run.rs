//! Running a program for its answer without a runtime: for a program that has to be done within milliseconds, and small.
//! Daemons use [`Command`](crate::Command), which has a time limit.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::CommandError;

/// Runs a program to its end, with this input and these variables beside ours. Its standard error is ours. Answers what
/// it printed.
pub fn run(program: &Path, envs: &[(&str, &str)], input: &[u8]) -> Result<Vec<u8>, CommandError> {
    let command = || program.display().to_string();
    let failed = |cause| CommandError::Spawn {
        command: command(),
        cause,
    };
    let mut child = Command::new(program)
        .envs(envs.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // Beside the reading: each side may wait for the other to empty a pipe.
        scope.spawn(move || {
            // One that does not want its input has closed the pipe, and that is its matter.
            let _ = stdin.map(|mut stdin| stdin.write_all(input));
        });
        child.wait_with_output()
    })
    .map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(CommandError::Failed {
        program: command(),
        command: command(),
        status: output.status,
        stdout: output.stdout,
        stderr: String::new(),
    })
}
