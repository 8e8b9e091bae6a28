//! Changing the mode under traffic, again and again: nothing may happen to any flow.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::flows::{Crowd, Daemon, Report, World, crowd};
use super::{Figures, Stage, Unit};

/// The modes, in turn.
const MODES: [&str; 2] = ["iptables", "ebpf"];

/// Flows of each kind to each address from each place, that begin in one mode.
const EACH: usize = 4;

/// Flags of the scenario.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// How often the mode is changed; 50 by default, 6 with --quick
    #[arg(long)]
    switches: Option<usize>,
}

/// Runs the scenario.
pub async fn run(stage: &Stage, args: &SwitchArgs) -> Result<Figures> {
    let switches = args.switches.unwrap_or(stage.times(50, 6));
    let outcome = play(stage, switches, EACH).await?;
    let mut figures = Figures::new("switch");
    report(&mut figures, &[], &outcome.reports);
    for (mode, took) in &outcome.took {
        figures.percentiles(&[("to", mode)], "switch", Unit::Milliseconds, took);
    }
    Ok(figures)
}

/// What came of changes.
#[derive(Debug)]
pub struct Played {
    /// By the mode in which flows began, and from where.
    pub reports: Vec<(&'static str, &'static str, Report)>,
    /// How long changes took, in milliseconds, by the mode changed to.
    pub took: Vec<(&'static str, Vec<f64>)>,
}

/// Changes the mode so often, with `each` flows of each sort from each mode.
pub async fn play(stage: &Stage, switches: usize, each: usize) -> Result<Played> {
    let world = World::new()?;
    let binaries = seaway_lab::topology::binaries()?;
    let (proxy, worker) = (binaries.join("seaway-proxy"), binaries.join("seaway-bench"));
    let _servers = crowd::serve(&world, &worker).await?;
    let daemon = Daemon::start(&world, &proxy, MODES[0]).await?;
    let mut crowds = vec![(MODES[0], Crowd::begin(&world, &worker, each).await?)];
    let mut took = MODES.map(|mode| (mode, Vec::new()));
    for number in 1..=switches {
        let (mode, taken) = &mut took[number % MODES.len()];
        taken.push(daemon.switch(mode).await?.as_secs_f64() * 1000.0);
        if number == 1 {
            crowds.push((mode, Crowd::begin(&world, &worker, each).await?));
        }
        stage.say(&format!(
            "switch {number}: {mode} after {:.0} ms",
            taken[taken.len() - 1]
        ));
        // Traffic in each mode, so that every flow has gone both ways.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut reports = Vec::new();
    for (mode, crowd) in crowds {
        for (place, report) in crowd.end().await? {
            stage.say(&format!("{place}, begun in {mode}: {report}"));
            reports.push((mode, place, report));
        }
    }
    let broken = reports.iter().any(|(_, _, report)| !report.is_whole());
    if broken {
        stage.say(&format!("the end of the proxy's log:\n{}", daemon.log()));
    }
    Ok(Played {
        reports,
        took: took.into(),
    })
}

/// The figures that must be zero, and how much they were taken of.
pub(super) fn report(
    figures: &mut Figures,
    labels: &[(&'static str, &str)],
    reports: &[(&'static str, &'static str, Report)],
) {
    let mut all = Report::default();
    for (_, _, report) in reports {
        all.add(report.clone());
    }
    for (metric, value) in [
        ("flows", all.flows as f64),
        ("messages", all.messages as f64),
        ("broken_connections", all.broken as f64),
        ("changed_backends", all.changed as f64),
    ] {
        figures.count(labels, metric, value);
    }
    figures.value(labels, "carried", Unit::Bytes, all.bytes as f64);
    figures.named(labels, "lost_bytes", Unit::Bytes, all.lost_bytes as f64);
    figures.value(
        labels,
        "longest_wait",
        Unit::Milliseconds,
        all.longest_ms as f64,
    );
}
