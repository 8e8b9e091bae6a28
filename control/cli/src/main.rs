//! `seaway`: the bundled control plane and the lab in one file.

mod agent;
mod echo;
mod kubeconfig;
mod lab;
mod probe;
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use seaway_daemon::{LogArgs, block_on, stop_signal};

#[derive(Parser)]
#[command(
    name = "seaway",
    version,
    about = "Bundled control plane and lab of the Seaway network data plane"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run the control plane: store, API server and controllers
    Server(server::ServerArgs),
    /// Run the Pods of one node: CNI plugin, processes, probes, logs
    Agent(agent::AgentArgs),
    /// Write a kubeconfig for a user or a node, signed by the cluster's authority
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Bring up, look at and take down whole clusters in network namespaces
    Lab(lab::LabArgs),
    /// Answer over TCP, HTTP and UDP with who answers: the workload of demo and tests
    Echo(echo::EchoArgs),
    /// Ask an echo server, again and again, and say who answered
    Probe(probe::ProbeArgs),
    /// Do nothing until told to stop: the container of a pod that has nothing to do
    Pause,
}

/// The exit code of a command that failed; 2 (clap's) means that the command line was not understood.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.start(default_filter(&cli.command));
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Server(args) => block_on(shared()?, server::run(args))?,
        Command::Agent(args) => block_on(shared()?, agent::run(args))?,
        Command::Kubeconfig(args) => kubeconfig::run(&args)?,
        Command::Lab(args) => return shared()?.block_on(lab::run(args)),
        Command::Echo(args) => small()?.block_on(echo::run(args))?,
        Command::Probe(args) => {
            seaway_kernel::end_with_reader();
            return small()?.block_on(probe::run(args));
        }
        Command::Pause => small()?.block_on(pause())?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn pause() -> anyhow::Result<()> {
    stop_signal()?.await;
    Ok(())
}

/// What is logged when RUST_LOG says nothing: daemons tell what they do, commands only what went wrong.
fn default_filter(command: &Command) -> &'static str {
    match command {
        Command::Server(_) | Command::Agent(_) => "info",
        Command::Kubeconfig(_)
        | Command::Lab(_)
        | Command::Echo(_)
        | Command::Probe(_)
        | Command::Pause => "warn",
    }
}

fn shared() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// One thread: there may be hundreds of pods on a machine.
fn small() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
