//! `ip6tables-restore` that fails when it is told to: for changes of mode that fail half-way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, io};

use anyhow::{Context as _, Result};

/// Both variants, and only the second family: when it fails the first has been changed already.
const PROGRAMS: [&str; 2] = ["ip6tables-nft-restore", "ip6tables-legacy-restore"];

fn directory(scratch: &Path) -> PathBuf {
    scratch.join("bin")
}

/// What is to be refused stands in here; gone once it was.
fn order(scratch: &Path) -> PathBuf {
    scratch.join("refuse")
}

/// Puts programs that may refuse in front of those of the machine.
pub(super) fn install(scratch: &Path) -> Result<()> {
    let dir = directory(scratch);
    fs::create_dir_all(&dir)?;
    let order = order(scratch);
    let order = order.display();
    for name in PROGRAMS {
        let Some(real) = find(name) else { continue };
        let script = format!(
            "#!/bin/sh\n[ -e {order} ] || exec {real} \"$@\"\ninput=$(mktemp)\ncat > $input\n\
             if grep -q -F -f {order} $input; then\n  rm -f {order} $input\n  echo refused by the test >&2\n  exit 4\nfi\n\
             {real} \"$@\" < $input\nresult=$?\nrm -f $input\nexit $result\n",
            real = real.display(),
        );
        let path = dir.join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|program| program.exists())
}

/// Where a daemon is to look for programs.
pub(super) fn path(scratch: &Path) -> Result<String> {
    let own = env::var_os("PATH").unwrap_or_default();
    let all = [directory(scratch)]
        .into_iter()
        .chain(env::split_paths(&own));
    let joined = env::join_paths(all)?;
    joined.into_string().ok().context("PATH is no text")
}

/// Has the next change in which this text stands fail.
pub(super) fn refuse(scratch: &Path, text: &str) -> Result<()> {
    Ok(fs::write(order(scratch), format!("{text}\n"))?)
}

/// Whether it has.
pub(super) fn is_over(scratch: &Path) -> bool {
    let there = fs::metadata(order(scratch));
    there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
