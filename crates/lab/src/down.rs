//! Taking a lab away, from its name alone: after a clean run, a half-finished `up`, or the death of everything.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use seaway_kernel::{NetNs, cgroup};
use seaway_model::ownership::{BPFFS_ROOT, RUN_DIR};

use crate::names::{labs_cgroup, labs_dir};
use crate::{LabError, LabName};

/// How long killed processes get to be gone: each needs a turn of a processor for that, which a busy machine may keep from it.
const GRACE: Duration = Duration::from_secs(60);

/// Until they are killed again.
const ROUND: Duration = Duration::from_millis(100);

/// Removes everything of a lab, verifies it, and says what was removed. That there is nothing is fine.
pub fn down(name: &LabName) -> Result<Vec<String>, LabError> {
    let found = what_is_there(name)?;
    let removed = remove(name);
    // The parents go with the last lab, also when something of this one stays; another lab in them is no fault.
    for parent in [
        labs_dir(),
        RUN_DIR.into(),
        labs_cgroup()?,
        BPFFS_ROOT.into(),
    ] {
        let _ = std::fs::remove_dir(parent);
    }
    removed?;
    let left = what_is_there(name)?;
    if left.is_empty() {
        return Ok(found);
    }
    Err(LabError::Leftovers {
        name: name.to_string(),
        left,
    })
}

fn remove(name: &LabName) -> Result<(), LabError> {
    let cgroup = name.cgroup()?;
    kill_all(&cgroup)?;
    for netns in namespaces(name)? {
        NetNs::delete(&netns)?;
    }
    for pins in pin_directories(name) {
        remove_dir(&pins)?;
    }
    cgroup::delete(&cgroup)?;
    remove_dir(&name.dir())
}

/// Everything on this machine that carries the name of a lab.
pub fn what_is_there(name: &LabName) -> Result<Vec<String>, LabError> {
    let mut found = Vec::new();
    if name.dir().exists() {
        found.push(format!("directory {}", name.dir().display()));
    }
    let netns = namespaces(name)?.into_iter();
    found.extend(netns.map(|netns| format!("network namespace {netns}")));
    let cgroup = name.cgroup()?;
    if cgroup.exists() {
        found.push(format!("cgroup {}", cgroup.display()));
    }
    let pins = pin_directories(name).into_iter();
    found.extend(pins.map(|pins| format!("pins {}", pins.display())));
    Ok(found)
}

/// All labs of which anything is there, running or not.
pub fn labs() -> Result<Vec<LabName>, LabError> {
    let mut names: Vec<LabName> = entries(&labs_dir())
        .chain(entries(&labs_cgroup()?).filter(|path| path.is_dir()))
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn kill_all(cgroup: &Path) -> Result<(), LabError> {
    let start = Instant::now();
    while start.elapsed() < GRACE {
        // Again, for one that was about to join when the others were killed.
        cgroup::kill(cgroup)?;
        if cgroup::wait_empty(cgroup, ROUND)? {
            return Ok(());
        }
    }
    Err(LabError::TimedOut {
        what: format!("the end of all processes in {}", cgroup.display()),
        limit: GRACE,
        last: "some are still there after SIGKILL".into(),
    })
}

fn namespaces(name: &LabName) -> Result<Vec<String>, LabError> {
    let prefix = name.netns_prefix();
    let all = NetNs::list()?;
    Ok(all
        .into_iter()
        .filter(|netns| netns.starts_with(&prefix))
        .collect())
}

fn pin_directories(name: &LabName) -> Vec<PathBuf> {
    let prefix = name.bpffs_prefix();
    entries(Path::new(BPFFS_ROOT))
        .filter(|path| {
            path.file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
        })
        .collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

fn remove_dir(path: &Path) -> Result<(), LabError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::file("remove", path)(e))
        }
        _ => Ok(()),
    }
}
