//! `cargo xtask build-ebpf`: the eBPF programs, through the same builder that `proxy/build.rs` calls.

use std::process::ExitCode;

use anyhow::Result;
use xshell::cmd;

use crate::progress::step;
use crate::setup;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    step("building the eBPF programs", || {
        let shell = workspace.shell()?;
        cmd!(shell, "cargo check --quiet --package seaway-proxy")
            .quiet()
            .run()?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
