//! A load in the background: `seaway probe` without an end, and what came of every single request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use seaway_kernel::{Process, Signal, Spawn};

use super::{Attempt, Summary, Transport};
use crate::{LabError, Place, eventually};

/// For one request under load; more than any restart may cost, less than a test's patience.
const TIMEOUT_MS: u64 = 3000;

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A running load.
#[derive(Debug)]
pub struct Load {
    process: Process,
    output: PathBuf,
}

impl Load {
    pub(crate) fn start(
        place: &Place,
        transport: Transport,
        target: SocketAddr,
        interval: Duration,
    ) -> Result<Self, LabError> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = format!("load-{}-{number}.jsonl", std::process::id());
        let output = place.scratch.join(file);
        let mut child = Spawn::new(place.binaries.join("seaway"))
            .args(["probe", transport.as_str(), &target.to_string()])
            .args([
                "--count",
                "0",
                "--interval-ms",
                &interval.as_millis().to_string(),
            ])
            .args(["--timeout-ms", &TIMEOUT_MS.to_string()])
            .netns(&place.netns)
            .cgroup(&place.cgroup)
            .stdout(&output)
            .start()?;
        let process = Process::open(child.id())?;
        std::thread::spawn(move || child.wait());
        let process = process.ok_or_else(|| LabError::Invalid("the load ended at once".into()))?;
        Ok(Self { process, output })
    }

    /// How many requests have an outcome by now.
    pub fn finished(&self) -> u64 {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        text.lines().count() as u64
    }

    /// Waits until this many more requests have an outcome.
    pub async fn more(&self, count: u64) -> Result<(), LabError> {
        let goal = self.finished() + count;
        eventually(
            "the progress of the load",
            Duration::from_secs(30),
            async || {
                let now = self.finished();
                if now >= goal {
                    Ok(())
                } else {
                    Err(format!("{now} of {goal} requests"))
                }
            },
        )
        .await
    }

    /// Ends it: every attempt, and their sum.
    pub async fn stop(self) -> Result<(Vec<Attempt>, Summary), LabError> {
        self.process.signal(Signal::Terminate)?;
        self.process.exited().await?;
        let text =
            std::fs::read_to_string(&self.output).map_err(LabError::file("read", &self.output))?;
        parse(&text).ok_or_else(|| LabError::Invalid("the load left no summary".into()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A load that nobody asked for its outcome, or one that has ended.
        let _ = self.process.signal(Signal::Kill);
    }
}

/// The lines of `seaway probe`: attempts, then the summary.
pub(crate) fn parse(text: &str) -> Option<(Vec<Attempt>, Summary)> {
    let mut lines: Vec<&str> = text.lines().collect();
    let summary = serde_json::from_str(lines.pop()?).ok()?;
    let attempts = lines.into_iter().map(serde_json::from_str);
    Some((attempts.collect::<Result<_, _>>().ok()?, summary))
}
