//! `seaway-overlay`: the node daemon that keeps the VXLAN mesh.

use std::process::ExitCode;

use clap::Parser;
use seaway_overlay::cli::{Cli, Command};
use seaway_overlay::{cleanup, run, status};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.start("info");
    match dispatch(cli.command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args).await?,
        Command::Cleanup(args) => cleanup::cleanup(&args.to_places()).await?,
        Command::Status(args) => {
            let status = status::ask(args.healthz_bind_address).await?;
            if args.json {
                println!("{}", serde_json::to_string_pretty(&status)?);
            } else {
                print!("{}", status::table(&status));
            }
            if !status.in_sync {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
