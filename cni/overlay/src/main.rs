//! `seaway-overlay`: the node daemon that keeps the VXLAN mesh.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use seaway_overlay::cli::{Cli, Command};
use seaway_overlay::{cleanup, run, status};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.start("info");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("cannot start")
        .and_then(|runtime| seaway_daemon::block_on(runtime, dispatch(cli.command)));
    match outcome {
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
        Command::Cleanup(args) => {
            let removed = cleanup::cleanup(&args.to_places()).await?;
            for one in &removed {
                println!("removed {one}");
            }
            if removed.is_empty() {
                println!("nothing to remove");
            }
        }
        Command::Status(args) => {
            seaway_kernel::end_with_reader();
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
