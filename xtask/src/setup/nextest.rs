//! The test runner.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::State;
use crate::progress;

/// The newest one known to build with the Rust of this project.
const VERSION: &str = "0.9.143";
pub(crate) const WHY: &str = "runs each test in a process of its own, as namespaces want it";

pub(crate) fn state() -> State {
    let found = Command::new("cargo")
        .args(["nextest", "--version"])
        .output();
    match found {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let version = text.split_whitespace().nth(1).unwrap_or("?");
            State::Present(version.to_owned())
        }
        _ => State::Missing(format!("cargo install {VERSION}")),
    }
}

pub(crate) fn install(log: &Path) -> Result<()> {
    progress::logged(
        Command::new("cargo")
            .args(["install", "cargo-nextest", "--version", VERSION, "--locked"])
            .env("CARGO_PROFILE_RELEASE_LTO", "off"),
        log,
    )
}
