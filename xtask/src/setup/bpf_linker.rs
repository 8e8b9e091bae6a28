//! bpf-linker, linked against the LLVM of the compiler whose bitcode it must read.
//!
//! Debian's `rustc-web` depends on `libllvmNN`; a directory with one link to that library is all that
//! bpf-linker's build wants of an LLVM installation. The `-dev` package would be 585 MB for the same link.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::State;
use crate::progress;

const VERSION: &str = "0.13.0";
pub(crate) const WHY: &str = "links the eBPF programs";
const COMPILER: &str = "/usr/bin/rustc";

pub(crate) fn state() -> Result<State> {
    let Some(llvm) = compiler_llvm() else {
        return Ok(State::Missing(format!("cargo install, after {COMPILER}")));
    };
    let plan = State::Missing(format!("cargo install {VERSION} for LLVM {llvm}"));
    let Ok(version) = Command::new("bpf-linker").arg("--version").output() else {
        return Ok(plan);
    };
    let right_version = String::from_utf8_lossy(&version.stdout)
        .trim()
        .ends_with(&format!(" {VERSION}"));
    // A security update may move the compiler to another LLVM under a linker that was built before.
    let right_llvm = which("bpf-linker")
        .and_then(|path| libllvm_of(&path))
        .is_some_and(|library| library.contains(&format!("libLLVM.so.{llvm}")));
    if right_version && right_llvm {
        return Ok(State::Present(format!("{VERSION}, LLVM {llvm}")));
    }
    Ok(plan)
}

pub(crate) fn install(log: &Path) -> Result<()> {
    let llvm = compiler_llvm().with_context(|| format!("{COMPILER} does not tell its LLVM"))?;
    let library = libllvm_of(Path::new(COMPILER))
        .with_context(|| format!("{COMPILER} is not linked with a shared libLLVM"))?;
    let prefix = std::env::temp_dir().join(format!("seaway-llvm-{}", std::process::id()));
    let result = install_with(&prefix, &library, &llvm, log);
    std::fs::remove_dir_all(&prefix).ok();
    result
}

fn install_with(prefix: &Path, library: &str, llvm: &str, log: &Path) -> Result<()> {
    let lib = prefix.join("lib");
    std::fs::create_dir_all(&lib).with_context(|| format!("cannot create {}", lib.display()))?;
    let target = std::fs::canonicalize(library).with_context(|| library.to_owned())?;
    std::os::unix::fs::symlink(&target, lib.join("libLLVM.so"))?;
    progress::logged(
        Command::new("cargo")
            .args([
                "install",
                "bpf-linker",
                "--version",
                VERSION,
                "--locked",
                "--force",
            ])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{llvm}"),
            ])
            .env("LLVM_PREFIX", prefix)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_LTO", "off"),
        log,
    )
}

/// Major version of the LLVM inside Debian's compiler.
fn compiler_llvm() -> Option<String> {
    let output = Command::new(COMPILER).arg("-vV").output().ok()?;
    llvm_major(&String::from_utf8_lossy(&output.stdout))
}

fn llvm_major(verbose_version: &str) -> Option<String> {
    let line = verbose_version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    Some(line.split('.').next()?.trim().to_owned())
}

/// The libLLVM that an executable loads.
fn libllvm_of(executable: &Path) -> Option<String> {
    let output = Command::new("ldd").arg(executable).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    libllvm_in(&text)
}

fn libllvm_in(ldd: &str) -> Option<String> {
    ldd.lines()
        .find(|line| line.contains("libLLVM"))?
        .split_whitespace()
        .find(|word| word.starts_with('/'))
        .map(str::to_owned)
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rustc_and_ldd_say() {
        assert_eq!(
            llvm_major("host: x\nLLVM version: 22.1.8\n").as_deref(),
            Some("22")
        );
        let ldd = "\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x2)\n";
        assert_eq!(
            libllvm_in(ldd).as_deref(),
            Some("/lib/x86_64-linux-gnu/libLLVM.so.22.1")
        );
        assert_eq!(libllvm_in("\tlibc.so.6 => /lib/libc.so.6"), None);
    }
}
