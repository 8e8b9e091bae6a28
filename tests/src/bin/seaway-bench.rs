//! Figures: how long, how much, in which mode. One scenario a run; see `docs/bench.md`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use seaway_daemon::{LogArgs, stop_signal};
use seaway_tests::bench::datapath::{self, DatapathArgs};
use seaway_tests::bench::first_answer::{self, FirstAnswerArgs};
use seaway_tests::bench::flows::worker::{self, FlowsArgs};
use seaway_tests::bench::mesh::{self, MeshArgs};
use seaway_tests::bench::one_node::pod::{self, PodArgs};
use seaway_tests::bench::overlay;
use seaway_tests::bench::packet::{self, PacketArgs};
use seaway_tests::bench::plot::{self, PlotArgs};
use seaway_tests::bench::programming::{self, ProgrammingArgs};
use seaway_tests::bench::restart::{self, RestartArgs};
use seaway_tests::bench::switch::{self, SwitchArgs};
use seaway_tests::bench::{Figure, Figures, Stage, cni, walkthrough};

#[derive(Parser)]
#[command(
    name = "seaway-bench",
    about = "Measure Seaway; progress goes to stderr, figures to stdout"
)]
struct Cli {
    /// One JSON object a figure and line, instead of a table
    #[arg(long, global = true)]
    json: bool,

    /// Few repetitions: to see that it works, not to quote
    #[arg(long, global = true)]
    quick: bool,

    #[command(flatten)]
    log: LogArgs,

    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Three nodes come up, a Deployment grows, the new replica is reached; memory and sizes; ADD and DEL
    Walkthrough,
    /// ADD and DEL of the CNI plugin, one by one and fifty at once, beside the reference plugins
    Cni,
    /// Pod to pod across two nodes, in both modes, beside flannel's form
    Overlay,
    /// What it costs a proxy to follow changes among many Services: start, one change, processor time, memory
    Programming(ProgrammingArgs),
    /// What a packet pays for many Services: first packets, connections a second, requests a second
    Datapath(DatapathArgs),
    /// The overlay of one node among a thousand: until it has every way, what one change costs, memory
    Mesh(MeshArgs),
    /// What a packet costs in the programs of eBPF mode, in nanoseconds
    Packet(PacketArgs),
    /// The mode is changed again and again under traffic: what happens to flows, and how long a change takes
    Switch(SwitchArgs),
    /// The proxy is killed and started anew under traffic, in each mode: the same
    Restart(RestartArgs),
    /// No scenario: draw what --json printed
    Plot(PlotArgs),
    #[command(name = first_answer::SUBCOMMAND, hide = true)]
    FirstAnswer(FirstAnswerArgs),
    #[command(name = worker::SUBCOMMAND, hide = true)]
    Flows(FlowsArgs),
    #[command(name = pod::SUBCOMMAND, hide = true)]
    Pod(PodArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.start("warn");
    match run(&cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<ExitCode> {
    let stage = Stage::new(cli.quick);
    let stop = stop_signal()?;
    let scenario = async {
        match &cli.scenario {
            Scenario::FirstAnswer(args) => first_answer::run(args).await.map(|()| None),
            Scenario::Flows(args) => worker::run(args).await.map(|()| None),
            Scenario::Pod(args) => pod::run(args).await.map(|()| None),
            Scenario::Plot(args) => plot::run(args).map(|()| None),
            Scenario::Programming(args) => {
                stage.describe_machine();
                programming::run(&stage, args).await.map(Some)
            }
            Scenario::Datapath(args) => {
                stage.describe_machine();
                datapath::run(&stage, args).await.map(Some)
            }
            Scenario::Mesh(args) => {
                stage.describe_machine();
                mesh::run(&stage, args).await.map(Some)
            }
            Scenario::Packet(args) => {
                stage.describe_machine();
                packet::run(&stage, args).await.map(Some)
            }
            Scenario::Switch(args) => {
                stage.describe_machine();
                switch::run(&stage, args).await.map(Some)
            }
            Scenario::Restart(args) => {
                stage.describe_machine();
                restart::run(&stage, args).await.map(Some)
            }
            Scenario::Walkthrough => {
                stage.describe_machine();
                walkthrough::run(&stage).await.map(Some)
            }
            Scenario::Cni => {
                stage.describe_machine();
                cni::run(&stage).await.map(Some)
            }
            Scenario::Overlay => {
                stage.describe_machine();
                overlay::run(&stage).await.map(Some)
            }
        }
    };
    // Whatever a scenario made goes away when it is dropped, so breaking it off is all that there is to do.
    let figures = tokio::select! {
        figures = scenario => figures?,
        () = stop => {
            stage.say("interrupted");
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(figures) = figures {
        show(&figures, cli.json);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(figures: &Figures, json: bool) {
    if !json {
        println!("{}", figures.table());
        return;
    }
    for line in figures.list().iter().map(Figure::json) {
        println!("{line}");
    }
}
