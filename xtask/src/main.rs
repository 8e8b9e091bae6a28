//! `cargo xtask`: set-up, tests, demo, benchmarks, fuzzing, tidy. The only build tool besides cargo itself.
//!
//! It links nothing of the project, so it compiles in seconds on a fresh machine and can put there what the
//! rest needs to compile at all. One file a subcommand.

mod bench;
mod build_ebpf;
mod ci;
mod demo;
mod fuzz;
mod leaks;
mod mutants;
mod progress;
mod setup;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up, tests, demo, benchmarks, fuzzing, tidy"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need (Debian packages, eBPF tools, kubectl); says what and why
    Setup(setup::SetupArgs),
    /// Set up, build, and run the whole test suite
    Test(test::TestArgs),
    /// What CI runs: format, clippy, tidy, tests
    Ci,
    /// Check the shape of the code base: sizes, purity, direction of dependencies, the map
    Tidy,
    /// Set up, build, and run the main job: three nodes, two modes, one Service
    Demo(demo::DemoArgs),
    /// Run `seaway lab ...` from this checkout
    Lab(demo::LabArgs),
    /// Set up, build the release profile, and measure: `cargo xtask bench walkthrough [--quick] [--json]`
    Bench(bench::BenchArgs),
    /// Run fuzz targets under libFuzzer: `cargo xtask fuzz [TARGET..] [--seconds N]`
    Fuzz(fuzz::FuzzArgs),
    /// Change the pure code one place at a time and list the changes that no test notices
    Mutants(mutants::MutantsArgs),
    /// Build the eBPF programs on their own
    BuildEbpf,
}

fn main() -> ExitCode {
    let done = if fuzz::is_compiler() {
        fuzz::compile()
    } else {
        let cli = Cli::parse();
        Workspace::find().and_then(|workspace| run(cli.command, &workspace))
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    match command {
        Command::Setup(args) => setup::run(workspace, &args),
        Command::Test(args) => test::run(workspace, &args),
        Command::Ci => ci::run(workspace),
        Command::Tidy => tidy::run(workspace),
        Command::Demo(args) => demo::run(workspace, &args),
        Command::Lab(args) => demo::lab(workspace, &args),
        Command::Bench(args) => bench::run(workspace, &args),
        Command::Fuzz(args) => fuzz::run(workspace, &args),
        Command::Mutants(args) => mutants::run(workspace, &args),
        Command::BuildEbpf => build_ebpf::run(workspace),
    }
}
