//! `seaway lab`: clusters in network namespaces, from the command line.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use seaway_daemon::stop_signal;
use seaway_lab::{Lab, LabConfig, LabName, Mode, down, status};

#[derive(Args)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Bring a lab up, and wait until every node is in sync
    Up(UpArgs),
    /// Take a lab away, also one that died half-way, and verify that nothing is left
    Down(NameArgs),
    /// Show every daemon of a lab: process, memory, health
    Status(StatusArgs),
    /// Show all labs of this machine
    List,
    /// Run a command inside a pod, as any process of the pod
    Exec(ExecArgs),
    /// Print the path of the administrator's kubeconfig
    Kubeconfig(NameArgs),
}

#[derive(Args)]
struct NameArgs {
    /// Which lab
    #[arg(long, default_value = "lab", env = "SEAWAY_LAB", value_name = "LAB")]
    name: LabName,
}

#[derive(Args)]
struct UpArgs {
    #[command(flatten)]
    name: NameArgs,

    /// How many nodes; they are called n1, n2, ...
    #[arg(long, default_value_t = 3, value_name = "N")]
    nodes: usize,

    /// How the proxy of a node works, where it is not the default; may be given more than once
    #[arg(long, value_name = "NODE=MODE", value_parser = node_mode)]
    mode: Vec<(String, Mode)>,

    /// How the proxies of all other nodes work: iptables or ebpf
    #[arg(long, default_value = "iptables", value_name = "MODE")]
    default_mode: Mode,

    /// RUST_LOG of the daemons
    #[arg(long, default_value = "info", value_name = "FILTER")]
    daemon_log: String,
}

#[derive(Args)]
struct StatusArgs {
    #[command(flatten)]
    name: NameArgs,

    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ExecArgs {
    #[command(flatten)]
    name: NameArgs,

    /// POD or NAMESPACE/POD; `node:n1` is the node itself, `outside` the client outside of the cluster
    pod: String,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) async fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        LabCommand::Up(args) => up(args).await?,
        LabCommand::Down(args) => take_down(&args.name).await?,
        LabCommand::Status(args) => {
            seaway_kernel::end_with_reader();
            return show_status(&args).await;
        }
        LabCommand::List => {
            seaway_kernel::end_with_reader();
            list()?;
        }
        LabCommand::Exec(args) => exec(&args).await?,
        LabCommand::Kubeconfig(args) => {
            println!("{}", Lab::open(&args.name)?.kubeconfig().display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(args: UpArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let name = args.name.name;
    let mut config = LabConfig::new(name.clone())?
        .nodes(args.nodes, args.default_mode)
        .progress(move |line| eprintln!("{:>6.1} s  {line}", start.elapsed().as_secs_f64()));
    for (node, mode) in &args.mode {
        config = config.mode(node, *mode)?;
    }
    config.log_filter = args.daemon_log;
    let stop = stop_signal()?;
    let lab = tokio::select! {
        lab = Lab::up(config) => lab?,
        () = stop => {
            eprintln!("interrupted: taking lab {name} down");
            take_down(&name).await?;
            bail!("interrupted");
        }
    };
    println!("export KUBECONFIG={}", lab.kubeconfig().display());
    Ok(())
}

async fn take_down(name: &LabName) -> anyhow::Result<()> {
    let name = name.clone();
    let shown = name.clone();
    let removed = tokio::task::spawn_blocking(move || down::down(&name)).await??;
    if removed.is_empty() {
        eprintln!("there is nothing of lab {shown}");
    }
    for line in removed {
        eprintln!("removed {line}");
    }
    Ok(())
}

async fn show_status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = status::status(&args.name.name).await?;
    if args.json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        let mut table = plain_table();
        table.set_header(["DAEMON", "MODE", "PID", "MEMORY", "HEALTH"]);
        for daemon in &status.daemons {
            table.add_row([
                daemon.daemon.clone(),
                daemon
                    .mode
                    .map_or_else(String::new, |mode| mode.to_string()),
                daemon.pid.map_or_else(String::new, |pid| pid.to_string()),
                daemon
                    .resident_kib
                    .map_or_else(String::new, |kib| format!("{:.1} MiB", kib as f64 / 1024.0)),
                daemon.health.clone(),
            ]);
        }
        println!("{table}");
    }
    Ok(if status.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn list() -> anyhow::Result<()> {
    let mut table = plain_table();
    table.set_header(["LAB", "NODES", "STATE"]);
    for name in down::labs()? {
        let (nodes, state) = match Lab::open(&name) {
            Ok(lab) => {
                let modes = lab.config().nodes.iter();
                let modes: Vec<String> = modes.map(|n| format!("{}={}", n.name, n.mode)).collect();
                let state = if lab.came_up() { "up" } else { "never came up" };
                (modes.join(" "), state)
            }
            Err(_) => (String::new(), "left over"),
        };
        table.add_row([name.to_string(), nodes, state.to_owned()]);
    }
    println!("{table}");
    Ok(())
}

async fn exec(args: &ExecArgs) -> anyhow::Result<()> {
    let lab = Lab::open(&args.name.name)?;
    let place = match args.pod.strip_prefix("node:") {
        Some(node) => lab.node(node)?,
        None if args.pod == "outside" => lab.outside()?,
        None => lab.pod(&args.pod).await?,
    };
    Err(place.enter(&args.command)).with_context(|| format!("in {}", place.label()))
}

fn node_mode(text: &str) -> Result<(String, Mode), String> {
    let (node, mode) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NODE=MODE, as in n2=ebpf"))?;
    Ok((node.to_owned(), mode.parse()?))
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table
}
