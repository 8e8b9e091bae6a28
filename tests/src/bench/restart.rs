//! The proxy is killed and started anew under traffic, in each mode: nothing may happen to any flow.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::flows::{Crowd, Daemon, World, crowd};
use super::switch::report;
use super::{Figures, Stage, Unit};

/// Flows of each kind to each address from each place.
const EACH: usize = 4;

/// Flags of the scenario.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// How often the proxy is killed in each mode; 20 by default, 3 with --quick
    #[arg(long)]
    restarts: Option<usize>,
}

/// Runs the scenario.
pub async fn run(stage: &Stage, args: &RestartArgs) -> Result<Figures> {
    let restarts = args.restarts.unwrap_or(stage.times(20, 3));
    let mut figures = Figures::new("restart");
    for mode in ["iptables", "ebpf"] {
        let labels = [("mode", mode)];
        let world = World::new()?;
        let binaries = seaway_lab::topology::binaries()?;
        let (proxy, worker) = (binaries.join("seaway-proxy"), binaries.join("seaway-bench"));
        let _servers = crowd::serve(&world, &worker).await?;
        let mut daemon = Daemon::start(&world, &proxy, mode).await?;
        let flows = Crowd::begin(&world, &worker, EACH).await?;
        let mut took = Vec::new();
        for _ in 0..restarts {
            daemon.kill()?;
            // Traffic goes on without anybody.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let started = Instant::now();
            daemon.run(mode).await?;
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        let mut reports = Vec::new();
        for (place, report) in flows.end().await? {
            stage.say(&format!("{mode}, {place}: {report}"));
            reports.push((mode, place, report));
        }
        report(&mut figures, &labels, &reports);
        figures.percentiles(&labels, "restart", Unit::Milliseconds, &took);
    }
    Ok(figures)
}
