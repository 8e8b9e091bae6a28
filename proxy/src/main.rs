//! Wiring of the `seaway-proxy` binary; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use seaway_proxy::cli::{Cli, Command};
use seaway_proxy::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.start("info");
    if cli.command.only_shows() {
        seaway_kernel::end_with_reader();
    }
    seaway_daemon::share_memory();
    // Two workers serve health and watches while the main thread is busy with the kernel.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("seaway-proxy: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = seaway_daemon::block_on(runtime, async {
        match cli.command {
            Command::Run(args) => commands::run(args).await,
            Command::Plan(args) => commands::plan(args).await,
            Command::Dump(args) => commands::dump(args).await,
            Command::Explain(args) => commands::explain(args).await,
            Command::Flows(args) => commands::flows(args).await,
            Command::Switch(args) => commands::switch(args).await,
            Command::Cleanup(args) => commands::cleanup(args).await,
            Command::Check(args) => commands::check(&args).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seaway-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}
