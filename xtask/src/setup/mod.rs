//! `cargo xtask setup`: what building and testing need, put on the machine once.

mod bpf_linker;
mod debian;
mod kubectl;
mod nextest;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::progress;
use crate::workspace::Workspace;

#[derive(Args, Default)]
pub(crate) struct SetupArgs {
    /// Only report what is there and what is missing; exit 1 if anything is missing
    #[arg(long)]
    pub(crate) check: bool,
}

/// One thing that must be on the machine.
struct Requirement {
    name: String,
    why: &'static str,
    state: State,
}

enum State {
    /// There, and which one.
    Present(String),
    /// Not there, and what installing it means.
    Missing(String),
}

pub(crate) fn run(workspace: &Workspace, args: &SetupArgs) -> Result<ExitCode> {
    if args.check {
        let requirements = survey(workspace)?;
        for requirement in &requirements {
            println!("{}", requirement.line());
        }
        let missing = requirements.iter().filter(|r| r.is_missing()).count();
        if missing > 0 {
            println!("{missing} missing; `cargo xtask setup` installs them");
            return Ok(ExitCode::FAILURE);
        }
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    ensure(workspace)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing; silent and fast when nothing is.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let log = workspace.target.join("setup.log");

    let missing = debian::missing()?;
    if !missing.is_empty() {
        require_root("install Debian packages")?;
        for package in &missing {
            say_missing(package.name, package.why, debian::PLAN);
        }
        let what = format!("installing {} Debian packages", missing.len());
        progress::step(&what, || debian::install(&missing, &log))?;
    }
    if let State::Missing(plan) = bpf_linker::state()? {
        say_missing("bpf-linker", bpf_linker::WHY, &plan);
        progress::step("building bpf-linker (1 to 4 minutes)", || {
            bpf_linker::install(&log)
        })?;
    }
    if let State::Missing(plan) = nextest::state() {
        say_missing("cargo-nextest", nextest::WHY, &plan);
        progress::step("building cargo-nextest (4 to 8 minutes)", || {
            nextest::install(&log)
        })?;
    }
    if let State::Missing(plan) = kubectl::state(workspace) {
        say_missing("kubectl", kubectl::WHY, &plan);
        progress::step("fetching kubectl", || kubectl::install(workspace, &log))?;
    }

    let still: Vec<String> = survey(workspace)?
        .iter()
        .filter(|r| r.is_missing())
        .map(Requirement::line)
        .collect();
    if !still.is_empty() {
        bail!("set-up ran, and yet:\n{}", still.join("\n"));
    }
    Ok(())
}

fn say_missing(name: &str, why: &str, plan: &str) {
    eprintln!("setup: {name} is missing ({why}): {plan}");
}

fn survey(workspace: &Workspace) -> Result<Vec<Requirement>> {
    let mut all = debian::survey()?;
    all.push(Requirement {
        name: "bpf-linker".into(),
        why: bpf_linker::WHY,
        state: bpf_linker::state()?,
    });
    all.push(Requirement {
        name: "cargo-nextest".into(),
        why: nextest::WHY,
        state: nextest::state(),
    });
    all.push(Requirement {
        name: "kubectl".into(),
        why: kubectl::WHY,
        state: kubectl::state(workspace),
    });
    Ok(all)
}

fn require_root(to: &str) -> Result<()> {
    let shell = xshell::Shell::new()?;
    let user = xshell::cmd!(shell, "id -u").quiet().read()?;
    if user.trim() != "0" {
        bail!("need root to {to}; run `sudo -E cargo xtask setup` once");
    }
    Ok(())
}

impl Requirement {
    fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing(_))
    }

    fn line(&self) -> String {
        let (mark, detail) = match &self.state {
            State::Present(version) => ("ok     ", version),
            State::Missing(plan) => ("MISSING", plan),
        };
        format!("{mark} {:<24} {detail} ({})", self.name, self.why)
    }
}
