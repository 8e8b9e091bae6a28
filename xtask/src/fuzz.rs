//! `cargo xtask fuzz`: targets of `tests/fuzz` under libFuzzer, on the stable compiler.
//!
//! The crates that targets look into are compiled once more: optimised, with every check, and with the flags that
//! `cargo fuzz run --sanitizer none` sets (coverage of every edge, and of what is compared). For that this program is
//! cargo's wrapper around the compiler, so that everything else is shared with the tests. Sanitizers need a nightly
//! compiler, and there is next to no `unsafe` here for them to look at.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::progress::step;
use crate::setup;
use crate::workspace::{Profile, Workspace};

/// What these crates are compiled with besides what cargo says.
const FLAGS: &[&str] = &[
    "-Copt-level=2",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The crates that targets look into. Others are linked into build scripts as well, or compiled for eBPF, where nobody
/// counts coverage.
const WATCHED: &[&str] = &[
    "seaway_model",
    "seaway_kernel",
    "seaway_cluster",
    "seaway_proxy",
    "seaway_ebpf_logic",
    "seaway_fuzz",
];

/// Set where cargo runs this program as the compiler.
const AS_COMPILER: &str = "SEAWAY_FUZZ_COMPILER";

/// One input may take so many seconds before it counts as a hang.
const HANG: u32 = 10;

#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// Folders of tests/fuzz/corpus; all of them, one after the other, by default
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

pub(crate) fn run(workspace: &Workspace, args: &FuzzArgs) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    let kept = workspace.root.join("tests/fuzz/corpus");
    let targets = chosen(folders(&kept)?, &args.targets)?;
    let program = build(workspace)?;
    for target in targets {
        if !fuzz(workspace, &program, &kept, &target, args.seconds)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The targets that were named, or all. Before anything is built.
fn chosen(all: Vec<String>, named: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
        bail!(
            "there is no fuzz target {unknown}; there are {}",
            all.join(", ")
        );
    }
    Ok(if named.is_empty() {
        all
    } else {
        named.to_vec()
    })
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    if Command::new("c++").arg("--version").output().is_err() {
        bail!("libFuzzer is C++ and there is no compiler for it: apt-get install g++");
    }
    let this = std::env::current_exe().context("where is this program?")?;
    step("cargo build --bin seaway-fuzz, instrumented", || {
        let shell = workspace.shell()?;
        let status = Command::new("cargo")
            .args(["build", "--quiet", "--workspace", "--bin", "seaway-fuzz"])
            .args(["--features", "seaway-fuzz/engine"])
            .current_dir(&workspace.root)
            .env("PATH", shell.var_os("PATH").unwrap_or_default())
            .env("RUSTC_WORKSPACE_WRAPPER", &this)
            .env(AS_COMPILER, "1")
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("the fuzz targets cannot be built");
        }
        Ok(())
    })?;
    Ok(workspace.binaries(Profile::Dev).join("seaway-fuzz"))
}

/// Whether cargo runs this program as the compiler.
pub(crate) fn is_compiler() -> bool {
    std::env::var_os(AS_COMPILER).is_some()
}

/// Becomes the compiler that the arguments begin with. Only returns if that is impossible.
pub(crate) fn compile() -> Result<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (compiler, args) = args.split_first().context("no compiler is named")?;
    let error = Command::new(compiler)
        .args(args)
        .args(if is_watched(args) { FLAGS } else { &[] })
        .exec();
    Err(error).with_context(|| format!("cannot run {}", compiler.display()))
}

fn is_watched(args: &[OsString]) -> bool {
    let name = args
        .windows(2)
        .find(|pair| pair[0] == "--crate-name")
        .and_then(|pair| pair[1].to_str());
    name.is_some_and(|name| WATCHED.contains(&name))
}

/// Returns whether everything held.
fn fuzz(
    workspace: &Workspace,
    program: &Path,
    kept: &Path,
    target: &str,
    seconds: u32,
) -> Result<bool> {
    let kept = kept.join(target);
    // What covers more than was covered before is collected here, and is where the next run starts.
    let collected = workspace.target.join("fuzz/collected").join(target);
    let found = workspace.target.join("fuzz/found").join(target);
    for folder in [&collected, &found] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    eprintln!("==> {target}, for {seconds} s");
    let status = Command::new(program)
        .args([&collected, &kept])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={HANG}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        .env("SEAWAY_FUZZ_TARGET", target)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        eprintln!(
            "the input is in {}: once it holds, keep it in {} under a name that tells what it is",
            found.display(),
            kept.display()
        );
    }
    Ok(status.success())
}

fn folders(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_all_or_those_that_are_named() {
        let names =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        assert_eq!(chosen(names("a b"), &[]).unwrap(), names("a b"));
        assert_eq!(chosen(names("a b"), &names("b")).unwrap(), names("b"));
        let error = chosen(names("a b"), &names("b c")).unwrap_err().to_string();
        assert_eq!(error, "there is no fuzz target c; there are a, b");
    }

    #[test]
    fn only_what_targets_look_into_is_watched() {
        let watched = |text: &str| {
            let args: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            is_watched(&args)
        };
        assert!(watched(
            "--crate-name seaway_model --edition=2024 crates/model/src/lib.rs"
        ));
        assert!(!watched("--crate-name build_script_build proxy/build.rs"));
        assert!(!watched("-vV"));
    }
}
