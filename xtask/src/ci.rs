//! `cargo xtask ci`: what must pass before a change lands. `.ci/run` calls only this.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::progress::step;
use crate::test::{self, TestArgs};
use crate::workspace::Workspace;
use crate::{setup, tidy};

/// Needs (see `tests/src/require.rs`) that CI's machine cannot meet; a test skipped for any other is a failure.
const CI_LACKS: &[&str] = &[];

/// Each test may be tried twice, so that a machine that stood still does not decide; but what needs that is a defect, of the
/// test or of the product, and with more than so many of them nothing lands.
const FLAKY_AT_MOST: usize = 2;

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    let programs = "ebpf/programs";
    step("rustfmt", || {
        cargo(workspace, ".", &["fmt", "--all", "--check"])?;
        cargo(workspace, programs, &["fmt", "--check"])
    })?;
    step("tidy", || match tidy::violations(workspace)? {
        list if list.is_empty() => Ok(()),
        list => bail!("{} violations:\n{}", list.len(), list.join("\n")),
    })?;
    step("clippy", || {
        let deny = ["--", "-D", "warnings"];
        let all = ["clippy", "--quiet", "--workspace", "--all-targets"];
        cargo(workspace, ".", &[&all[..], &deny[..]].concat())?;
        // On the host's target: aya-ebpf opens unstable features for BPF only, so the stable clippy will do.
        cargo(
            workspace,
            programs,
            &[&["clippy", "--quiet"][..], &deny[..]].concat(),
        )
    })?;

    let tests = TestArgs {
        retries: 1,
        ..TestArgs::default()
    };
    let outcome = test::suite(workspace, &tests)?;
    let needless: Vec<String> = outcome
        .skips
        .iter()
        .filter(|skip| !CI_LACKS.contains(&skip.need.as_str()))
        .map(|skip| format!("{} ({})", skip.test, skip.reason))
        .collect();
    test::report(&outcome);
    if !outcome.passed {
        return Ok(ExitCode::FAILURE);
    }
    if outcome.flaky.len() > FLAKY_AT_MOST {
        bail!(
            "{} tests passed at their second attempt only, where {FLAKY_AT_MOST} may: see above",
            outcome.flaky.len()
        );
    }
    if !outcome.leaks.is_empty() {
        bail!("the suite did not leave the machine as it was: see above");
    }
    if !needless.is_empty() {
        bail!(
            "skipped, though this machine should run them: {}",
            needless.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn cargo(workspace: &Workspace, directory: &str, args: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .args(args)
        .current_dir(workspace.root.join(directory))
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("`cargo {}` in {directory} failed", args.join(" "));
    }
    Ok(())
}
