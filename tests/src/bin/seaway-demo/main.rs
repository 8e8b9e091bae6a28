//! The main job, end to end: three nodes in two modes, one Deployment, its Services, and who reaches whom.

mod checks;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use seaway_daemon::{LogArgs, stop_signal};
use seaway_lab::{Lab, LabConfig, LabName, Mode, down};

use crate::report::Report;

#[derive(Parser)]
#[command(
    name = "seaway-demo",
    about = "Three nodes in network namespaces (iptables, ebpf, iptables) carry a Service end to end"
)]
struct Cli {
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    json: bool,

    /// Leave the cluster running and print the line that points kubectl at it
    #[arg(long)]
    keep: bool,

    /// Name of the lab
    #[arg(long, default_value = "demo")]
    name: LabName,

    #[command(flatten)]
    log: LogArgs,
}

/// How the demo ended, apart from its checks.
enum Ending {
    Done,
    Interrupted,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.start("warn");
    let mut report = Report::new(Instant::now());
    let ending = run(&cli, &mut report).await;
    if let Err(error) = &ending {
        report.failed("demo", format!("{error:#}"));
    }
    let interrupted = matches!(ending, Ok(Ending::Interrupted));
    if interrupted {
        report.failed("demo", "interrupted".into());
    }
    println!("{}", report.table());
    if cli.json {
        println!("{}", report.json());
    }
    if report.ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run(cli: &Cli, report: &mut Report) -> Result<Ending> {
    let stop = stop_signal()?;
    let start = report.start;
    let config = LabConfig::new(cli.name.clone())?
        .nodes(3, Mode::Iptables)
        .mode("n2", Mode::Ebpf)?
        .progress(move |line| report::say(start, line));

    // A lab of that name that was there before is not ours to take down.
    let before = down::what_is_there(&cli.name)?;
    let outcome = tokio::select! {
        outcome = job(config, report, cli.keep) => outcome.map(|()| Ending::Done),
        () = stop => Ok(Ending::Interrupted),
    };
    let finished = matches!(outcome, Ok(Ending::Done));
    if before.is_empty() && !(finished && cli.keep) {
        report::say(start, "taking the cluster down");
        let name = cli.name.clone();
        tokio::task::spawn_blocking(move || down::down(&name))
            .await
            .context("take the cluster down")??;
    }
    outcome
}

async fn job(config: LabConfig, report: &mut Report, keep: bool) -> Result<()> {
    let started = Instant::now();
    let lab = Lab::up(config).await?;
    report.passed(
        "three nodes are up",
        started,
        "iptables, ebpf, iptables".into(),
    );
    let outcome = checks::all(&lab, report).await;
    if outcome.is_err() || !report.ok() {
        eprintln!("{}", lab.diagnose().await);
    }
    outcome?;
    if keep {
        println!("export KUBECONFIG={}", lab.kubeconfig().display());
        println!(
            "# seaway lab status --name {0}; remove it with: seaway lab down --name {0}",
            lab.name()
        );
    }
    Ok(())
}
