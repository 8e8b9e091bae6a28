//! Control groups, version 2 only: where processes are grouped, and where eBPF socket hooks are attached.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Error, directory};

/// Where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup` normally, `/sys/fs/cgroup/unified` on a machine that
/// still has version 1 controllers beside it.
pub fn mount_point() -> Result<PathBuf, Error> {
    let file = "/proc/self/mountinfo";
    let table = fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
    find_mount(&table).ok_or_else(|| Error::Invalid {
        object: "this machine".into(),
        reason: "no cgroup2 file system is mounted (mount -t cgroup2 none /sys/fs/cgroup)".into(),
    })
}

/// The directory of the calling process's cgroup.
pub fn own() -> Result<PathBuf, Error> {
    let file = "/proc/self/cgroup";
    let table = fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
    let relative = table
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .ok_or_else(|| Error::Invalid {
            object: file.into(),
            reason: "it has no cgroup2 line".into(),
        })?;
    Ok(mount_point()?.join(relative))
}

/// Creates a cgroup with its parents; it is fine if it exists.
pub fn create(path: &Path) -> Result<(), Error> {
    directory::create_all(path).map_err(|e| Error::io("create", named(path), e))
}

/// Removes a cgroup and those below it; it is fine if there is none. Nothing is killed: with a process left in it the
/// kernel answers "busy", and the error names the processes.
pub fn delete(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("list", named(path), e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", named(path), e))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            delete(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => {
            let left = processes(path).unwrap_or_default();
            let object = if left.is_empty() {
                named(path)
            } else {
                format!("{} (processes in it: {left:?})", named(path))
            };
            Err(Error::io("remove", object, e))
        }
    }
}

/// The kernel's numbers of a cgroup and of all below it: the inodes of their directories. What goes meanwhile is left out.
pub fn numbers(path: &Path) -> Result<BTreeSet<u64>, Error> {
    let own = fs::metadata(path).map_err(|e| Error::io("examine", named(path), e))?;
    let mut numbers = BTreeSet::from([own.ino()]);
    let mut due = vec![path.to_path_buf()];
    while let Some(dir) = due.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                numbers.insert(entry.ino());
                due.push(entry.path());
            }
        }
    }
    Ok(numbers)
}

/// The processes that are directly in a cgroup.
pub fn processes(path: &Path) -> Result<Vec<u32>, Error> {
    let file = path.join("cgroup.procs");
    let text =
        fs::read_to_string(&file).map_err(|e| Error::io("read", file.display().to_string(), e))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Kills every process in a cgroup and below it, in one go that a fork cannot outrun (Linux 5.14). It is fine if
/// there is no such cgroup.
pub fn kill(path: &Path) -> Result<(), Error> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(e) if e.kind() == ErrorKind::NotFound && !path.exists() => Ok(()),
        other => other.map_err(|e| Error::io("kill the processes of", named(path), e)),
    }
}

/// Waits (blocking) until no process is left in a cgroup or below it; `false` if one is after the limit. It is fine if
/// there is no such cgroup.
pub fn wait_empty(path: &Path, limit: Duration) -> Result<bool, Error> {
    let deadline = Instant::now() + limit;
    let mut events = match File::open(path.join("cgroup.events")) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(true),
        other => other.map_err(|e| Error::io("watch", named(path), e))?,
    };
    loop {
        let mut text = String::new();
        let read = events
            .rewind()
            .and_then(|()| events.read_to_string(&mut text));
        match read {
            // ENODEV: removed while we looked.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(true),
            other => other.map_err(|e| Error::io("watch", named(path), e))?,
        };
        if text.lines().any(|line| line == "populated 0") {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // The file reports each change of its content as an exceptional condition (cgroups(7)).
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX).max(1);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Error::io("watch", named(path), e)),
        }
    }
}

fn named(path: &Path) -> String {
    format!("cgroup {}", path.display())
}

/// Field 5 is the mount point; behind a lone `-` stands the file system type (proc(5)).
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        (rest.split(' ').next()? == "cgroup2")
            .then(|| fields.split(' ').nth(4).map(PathBuf::from))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_in_both_layouts() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            find_mount(hybrid),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        let unified = "31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(find_mount("31 30 0:27 / / rw - ext4 /dev/sda rw\n"), None);
    }

    #[test]
    fn create_and_delete_are_idempotent() {
        let root = mount_point()
            .unwrap()
            .join(format!("seaway-test-{}", std::process::id()));
        create(&root.join("a/b")).unwrap();
        create(&root.join("a/b")).unwrap();
        assert_eq!(processes(&root.join("a")).unwrap(), Vec::<u32>::new());
        kill(&root).unwrap();
        delete(&root).unwrap();
        delete(&root).unwrap();
        kill(&root).unwrap();
        assert!(!root.exists());
    }
}
