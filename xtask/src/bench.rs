//! `cargo xtask bench`: set up, build what users run (the release profile), and hand over to `seaway-bench`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::workspace::{Profile, Workspace};
use crate::{demo, setup, test};

#[derive(Args)]
#[command(after_help = "Scenarios and their flags: `cargo xtask bench help`, docs/bench.md")]
pub(crate) struct BenchArgs {
    /// The scenario and its flags, as `seaway-bench` takes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    test::build_binaries(workspace, Profile::Release)?;
    demo::become_binary(workspace, Profile::Release, "seaway-bench", &args.args)
}
