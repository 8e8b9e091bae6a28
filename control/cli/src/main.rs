//! `seaway`: the bundled control plane and the lab in one file.

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "seaway",
    version,
    about = "Bundled control plane and lab of the Seaway network data plane"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {}

fn main() {
    match Cli::parse().command {}
}
