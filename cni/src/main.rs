//! `seaway-cni`: a CNI plugin when a runtime calls it, a tool otherwise.

use std::io::stdin;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use seaway_cni::cli::Cli;
use seaway_cni::command::serve;
use seaway_cni::personality::Personality;
use seaway_cni::protocol::{Error, Version};

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        let program = std::env::args_os().next().map(PathBuf::from);
        let personality = Personality::of(&program.unwrap_or_default());
        let get = |name: &str| std::env::var(name).ok();
        return match serve(personality, get, stdin().lock()) {
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
    match Cli::parse().run() {
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
