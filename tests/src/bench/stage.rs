//! Where scenarios play: progress lines, what the machine is like, and a lab that goes away whatever happens.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use seaway_lab::{Lab, LabConfig, LabName, down};

/// Above this share of the processors busy, figures say more of the neighbours than of us.
const IDLE: f64 = 0.25;

/// What every scenario is given.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    pub start: Instant,
    /// Few repetitions: to see that it works, not to quote.
    pub quick: bool,
}

impl Stage {
    /// A stage that opens now.
    pub fn new(quick: bool) -> Self {
        Self {
            start: Instant::now(),
            quick,
        }
    }

    /// A progress line on stderr.
    pub fn say(&self, line: &str) {
        eprintln!("{:>6.1} s  {line}", self.start.elapsed().as_secs_f64());
    }

    /// How often to do something.
    pub fn times(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Says what the figures were taken on, and warns of neighbours.
    pub fn describe_machine(&self) {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        self.say(&format!(
            "machine: Linux {}, {cpus} processors, load {}",
            kernel.trim(),
            load.trim()
        ));
        if is_busy(&load, cpus) {
            self.say("warning: this machine is not idle; do not quote these figures");
        }
    }
}

/// From the text of `/proc/loadavg`: its first number is that of the last minute.
fn is_busy(loadavg: &str, cpus: usize) -> bool {
    let load = loadavg.split(' ').next().and_then(|s| s.parse().ok());
    load.is_some_and(|load: f64| load > cpus as f64 * IDLE)
}

/// A lab of the benchmark's own name. It is taken down when this is dropped, at whatever point of coming up.
#[derive(Debug)]
pub struct Claim(LabName);

impl Claim {
    /// The name for this process; nothing of it may be there already.
    pub fn new() -> Result<Self> {
        Self::another("")
    }

    /// The same for one of several, which differ by some letters.
    pub fn another(letters: &str) -> Result<Self> {
        let name: LabName = format!("bench{}{letters}", std::process::id()).parse()?;
        let found = down::what_is_there(&name)?;
        ensure!(found.is_empty(), "lab {name} is there already: {found:?}");
        Ok(Self(name))
    }

    /// A lab with this name, brought up.
    pub async fn up(&self, fill: impl FnOnce(LabConfig) -> Result<LabConfig>) -> Result<Lab> {
        let config = fill(LabConfig::new(self.0.clone())?)?;
        Lab::up(config).await.context("bring the lab up")
    }

    /// Takes the lab away; the name is still ours.
    pub async fn down(&self) -> Result<()> {
        let name = self.0.clone();
        tokio::task::spawn_blocking(move || down::down(&name)).await??;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Finds nothing after a regular end.
        if let Err(error) = down::down(&self.0) {
            eprintln!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_machine_is_told_by_the_last_minute() {
        assert!(!is_busy("0.31 3.00 2.00 1/80 123\n", 2));
        assert!(is_busy("1.10 0.00 0.00 1/80 123\n", 2));
        assert!(!is_busy("", 2));
    }
}
