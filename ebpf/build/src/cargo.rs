//! The nested call of cargo.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::{Programs, Toolchain};

/// The only crate that may use unstable features on a stable compiler (inline assembly for BPF).
const UNSTABLE_CRATE: &str = "aya_ebpf";

/// Variables of the outer build that must not reach the inner one.
const OUTER: [&str; 9] = [
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTUP_TOOLCHAIN",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
];

/// The command that builds the programs.
pub(crate) fn command(programs: &Programs, toolchain: &Toolchain, linker: &Path) -> Command {
    let mut command = match toolchain {
        Toolchain::Prebuilt(_) => {
            Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        }
        Toolchain::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]);
            command
        }
    };
    for variable in OUTER {
        command.env_remove(variable);
    }
    // The object must not depend on the profile of the host's build.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(name);
        }
    }
    if let Toolchain::Prebuilt(rustc) = toolchain {
        command
            .env("RUSTC", rustc)
            .env("RUSTC_BOOTSTRAP", UNSTABLE_CRATE);
    }
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&programs.arch, linker))
        .current_dir(&programs.dir)
        .args(["build", "--release", "--locked", "--bin"])
        .arg(&programs.binary)
        .args(["--target", programs.target])
        .arg("--target-dir")
        .arg(&programs.target_dir);
    if *toolchain == Toolchain::Nightly {
        command.arg("-Zbuild-std=core");
    }
    command
}

/// Compiler flags, in cargo's encoding: debug information is what BTF is made from.
fn flags(arch: &str, linker: &Path) -> OsString {
    let mut flags = OsString::from(format!(
        "-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f--cfg=bpf_target_arch=\"{arch}\"\x1f-Clinker="
    ));
    flags.push(linker);
    flags
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn programs() -> Programs {
        Programs {
            dir: PathBuf::from("/src/ebpf/programs"),
            binary: "seaway".to_owned(),
            target_dir: PathBuf::from("/src/target/ebpf"),
            target: "bpfel-unknown-none",
            arch: "x86_64".to_owned(),
        }
    }

    #[test]
    fn a_stable_compiler_opens_unstable_features_for_one_crate_only() {
        let toolchain = Toolchain::Prebuilt("/usr/bin/rustc".into());
        let command = command(&programs(), &toolchain, Path::new("/bin/bpf-linker"));
        let value = |name: &str| {
            command
                .get_envs()
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value)
                .map(|value| value.to_string_lossy().into_owned())
        };
        assert_eq!(value("RUSTC_BOOTSTRAP").as_deref(), Some("aya_ebpf"));
        assert_eq!(value("RUSTC").as_deref(), Some("/usr/bin/rustc"));
        assert_eq!(value("CARGO_TARGET_DIR"), None);
        assert!(!command.get_args().any(|arg| arg == "-Zbuild-std=core"));
    }

    #[test]
    fn nightly_builds_core() {
        let command = command(
            &programs(),
            &Toolchain::Nightly,
            Path::new("/bin/bpf-linker"),
        );
        assert_eq!(command.get_program(), "rustup");
        assert!(command.get_args().any(|arg| arg == "-Zbuild-std=core"));
    }
}
