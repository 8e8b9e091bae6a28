//! `cargo xtask demo` and `cargo xtask lab`: set up, build, and hand over to our own binaries.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{Profile, Workspace};
use crate::{setup, test};

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    json: bool,
    /// Leave the cluster running and print the line that points kubectl at it
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
pub(crate) struct LabArgs {
    /// What to pass on to `seaway lab`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &DemoArgs) -> Result<ExitCode> {
    let mut flags = Vec::new();
    if args.json {
        flags.push("--json".to_owned());
    }
    if args.keep {
        flags.push("--keep".to_owned());
    }
    hand_over(workspace, "seaway-demo", &flags)
}

pub(crate) fn lab(workspace: &Workspace, args: &LabArgs) -> Result<ExitCode> {
    let mut all = vec!["lab".to_owned()];
    all.extend(args.args.iter().cloned());
    hand_over(workspace, "seaway", &all)
}

fn hand_over(workspace: &Workspace, binary: &str, args: &[String]) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    test::build_binaries(workspace, Profile::Dev)?;
    become_binary(workspace, Profile::Dev, binary, args)
}

/// Becomes the program, so that Ctrl-C reaches it and nothing else.
pub(crate) fn become_binary(
    workspace: &Workspace,
    profile: Profile,
    binary: &str,
    args: &[String],
) -> Result<ExitCode> {
    let shell = workspace.shell()?;
    let program = workspace.binaries(profile).join(binary);
    let error = Command::new(&program)
        .args(args)
        .env("PATH", shell.var_os("PATH").unwrap_or_default())
        .env("SEAWAY_BIN_DIR", workspace.binaries(profile))
        .exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
