//! `seaway-cni`: a CNI plugin when a runtime calls it, a tool otherwise.

use std::io::stdin;
use std::process::ExitCode;

use clap::Parser;
use seaway_cni::cli::Cli;
use seaway_cni::command::serve;
use seaway_cni::protocol::{Code, Error, Version};

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fail(None, &Error::new(Code::Io, format!("cannot start: {e}"))),
    };
    if std::env::var_os("CNI_COMMAND").is_some() {
        return match runtime.block_on(serve(|name| std::env::var(name).ok(), stdin().lock())) {
            Ok(answer) => {
                if let Some(answer) = answer {
                    println!("{answer}");
                }
                ExitCode::SUCCESS
            }
            Err((version, error)) => fail(version, &error),
        };
    }
    if std::env::args_os().len() == 1 {
        // As the reference library does: runtimes and people probe plugins so.
        let versions = Version::ALL.map(Version::as_str).join(", ");
        eprintln!(
            "seaway-cni {}: CNI plugin of Seaway, protocol versions {versions}; see --help",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::SUCCESS;
    }
    match runtime.block_on(Cli::parse().run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runtimes read the error from standard output.
fn fail(version: Option<Version>, error: &Error) -> ExitCode {
    println!("{}", error.to_json(version));
    ExitCode::FAILURE
}
