//! Which compiler.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// A compiler that can build for BPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// This `rustc` has a prebuilt `core` for the target.
    Prebuilt(PathBuf),
    /// rustup's nightly with the sources of `core`.
    Nightly,
}

/// Where a distribution puts its compiler. Not looked for in `PATH`: rustup's proxies come first there.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// Finds a compiler for a target.
///
/// # Errors
///
/// If there is none; the message names two ways to get one.
pub fn find(target: &'static str) -> Result<Toolchain, Error> {
    if sysroot(&mut Command::new(DISTRIBUTION_RUSTC))
        .is_some_and(|root| has_prebuilt_core(&root, target))
    {
        return Ok(Toolchain::Prebuilt(DISTRIBUTION_RUSTC.into()));
    }
    if sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]))
        .is_some_and(|root| has_sources(&root))
    {
        return Ok(Toolchain::Nightly);
    }
    Err(Error::NoToolchain { target })
}

/// Finds the linker: in `PATH`, or where `cargo install` puts it.
pub(crate) fn linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|dir| dir.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn has_prebuilt_core(sysroot: &Path, target: &str) -> bool {
    let lib = sysroot.join("lib/rustlib").join(target).join("lib");
    fs::read_dir(lib).is_ok_and(|dir| {
        dir.flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysroot_tells_what_it_can_do() {
        let root = env::temp_dir().join(format!("seaway-sysroot-{}", std::process::id()));
        let lib = root.join("lib/rustlib/bpfel-unknown-none/lib");
        let core = root.join("lib/rustlib/src/rust/library/core/src");
        fs::create_dir_all(&lib).expect("temporary directory");
        fs::create_dir_all(&core).expect("temporary directory");
        let before = (
            has_prebuilt_core(&root, "bpfel-unknown-none"),
            has_sources(&root),
        );
        fs::write(lib.join("libcore-0123.rlib"), "").expect("temporary file");
        fs::write(core.join("lib.rs"), "").expect("temporary file");
        let after = (
            has_prebuilt_core(&root, "bpfel-unknown-none"),
            has_sources(&root),
        );
        let other = has_prebuilt_core(&root, "bpfeb-unknown-none");
        fs::remove_dir_all(&root).expect("temporary directory");
        assert_eq!(
            (before, after, other),
            ((false, false), (true, true), false)
        );
    }
}
