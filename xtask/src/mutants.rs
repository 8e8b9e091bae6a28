//! `cargo xtask mutants`: changes the pure code that decides about packets, one place at a time, and counts the changes
//! that no test notices. What is changed stands in `.cargo/mutants.toml`, the score in `CONTRIBUTING.md`.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;

/// A developer's tool: set-up does not bring it, CI does not run it.
const INSTALL: &str = "cargo install cargo-mutants --version 27.1.0 --locked";

/// Generated cases of a property, for each mutant: a quarter of the usual, so that tables have to notice most.
const CASES: &str = "64";

#[derive(Args)]
pub(crate) struct MutantsArgs {
    /// What to change; both by default
    #[arg(short, long)]
    package: Option<Subject>,
    /// One part of the work: `0/4` is the first of four
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Subject {
    /// `crates/model`
    Model,
    /// Which rules there are: the pure part of `proxy/src/iptables`
    Plan,
}

impl Subject {
    /// Where what was found is listed, below `target/mutants`.
    fn directory(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Plan => "plan",
        }
    }

    /// Which package is changed, and which of its tests have to notice.
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Model => &["--package", "seaway-model"],
            Self::Plan => &["--package", "seaway-proxy", "--", "iptables"],
        }
    }
}

/// Succeeds if every mutant was noticed.
pub(crate) fn run(workspace: &Workspace, args: &MutantsArgs) -> Result<ExitCode> {
    let installed = Command::new("cargo")
        .args(["mutants", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !installed.success() {
        bail!("cargo-mutants is not installed: `{INSTALL}`");
    }
    let subjects = match args.package {
        Some(subject) => vec![subject],
        None => vec![Subject::Model, Subject::Plan],
    };
    let mut noticed = true;
    for subject in subjects {
        let output = workspace.target.join("mutants").join(subject.directory());
        std::fs::create_dir_all(&output)
            .with_context(|| format!("cannot create {}", output.display()))?;
        let status = Command::new("cargo")
            .args(["mutants", "--no-shuffle", "--output"])
            .arg(output)
            .args(args.shard.iter().flat_map(|shard| ["--shard", shard]))
            .args(subject.args())
            .current_dir(&workspace.root)
            // A case that failed with one mutant is not remembered for the next; how small it could be is of no interest.
            .env("PROPTEST_CASES", CASES)
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .status()
            .context("cannot run cargo mutants")?;
        noticed &= status.success();
    }
    Ok(if noticed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
