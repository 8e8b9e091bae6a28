//! The BPF file system: where pins live.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};
use seaway_kernel::directory;

use super::error::EbpfError;

/// Where distributions mount it.
const STANDARD: &str = "/sys/fs/bpf";

/// Makes sure that a directory of the BPF file system exists, and mounts that file system at its standard place if it
/// is nowhere above.
pub(super) fn create_dir(dir: &Path) -> Result<(), EbpfError> {
    check_dir(dir)?;
    if !is_on(dir, BPF_FS_MAGIC) {
        mount(
            Some("bpf"),
            STANDARD,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .map_err(|error| EbpfError::io("mount a BPF file system at", STANDARD, error))?;
    }
    directory::create_all(dir).map_err(|error| EbpfError::file("create", dir, error))
}

/// Whether maps and links can be pinned below `bpffs_root`, and programs attached to the cgroup `cgroup_root`.
///
/// # Errors
///
/// Names the directory that is none of the kind, and the flag.
pub fn check_places(cgroup_root: &Path, bpffs_root: &Path) -> Result<(), EbpfError> {
    check_cgroup(cgroup_root)?;
    check_dir(bpffs_root)
}

/// A BPF file system is there, or can be mounted.
fn check_dir(dir: &Path) -> Result<(), EbpfError> {
    if is_on(dir, BPF_FS_MAGIC) || dir.starts_with(STANDARD) {
        return Ok(());
    }
    Err(EbpfError::NotBpffs {
        path: dir.to_path_buf(),
    })
}

/// Checks that a directory is a cgroup of version 2.
pub(super) fn check_cgroup(dir: &Path) -> Result<(), EbpfError> {
    if dir.is_dir() && is_on(dir, CGROUP2_SUPER_MAGIC) {
        Ok(())
    } else {
        Err(EbpfError::NotACgroup {
            path: dir.to_path_buf(),
        })
    }
}

/// Whether a path, or what exists of it, is on a file system of that type.
fn is_on(path: &Path, magic: FsType) -> bool {
    path.ancestors()
        .find(|dir| dir.exists())
        .is_some_and(|dir| statfs(dir).is_ok_and(|fs| fs.filesystem_type() == magic))
}

/// Names in a directory; none if it is not there.
pub(super) fn list(dir: &Path) -> Result<Vec<String>, EbpfError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(EbpfError::file("list", dir, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| EbpfError::file("list", dir, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes a pin; it is fine if it is not there.
pub(super) fn unpin(path: &Path) -> Result<(), EbpfError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EbpfError::file("remove", path, error))
        }
        _ => Ok(()),
    }
}
