//! Progress lines for what takes longer than a breath.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a step that is still at work says so.
const STILL_AT_WORK: Duration = Duration::from_secs(15);

/// Lines of a failed command's log that are shown.
const TAIL: usize = 40;

/// Prints `what`, runs `work`, and prints how long it took; in between, a line every 15 s.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let (done, wait) = mpsc::channel::<()>();
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let wait = wait;
            while let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(STILL_AT_WORK) {
                eprintln!("    ... {what} ({} s)", start.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        result
    });
    if result.is_ok() && start.elapsed() > Duration::from_secs(2) {
        eprintln!("    done in {:.1} s", start.elapsed().as_secs_f64());
    }
    result
}

/// Runs a chatty command with its output in `log`; shows the end of that log when it fails.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    writeln!(file, "$ {command:?}")?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            eprintln!("    | {line}");
        }
        bail!(
            "{:?} failed ({status}); all of its output: {}",
            command.get_program(),
            log.display()
        );
    }
    Ok(())
}
