//! Who holds the lock (flock(2)) of a file.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// The process that holds the lock on this file: name and process id, for people. `None` where nobody does, or where
/// `/proc` does not say.
pub fn holder(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino();
    let pid = holder_in(&std::fs::read_to_string("/proc/locks").ok()?, inode)?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let name = name.as_deref().map_or("a process", str::trim);
    Some(format!("{name} (pid {pid})"))
}

/// Finds the process in the text of proc_locks(5): `1: FLOCK  ADVISORY  WRITE 1718 00:19:1234 0 EOF`.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words.as_slice() else {
            return None;
        };
        let found: u64 = place.rsplit(':').next()?.parse().ok()?;
        (found == inode).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:19:5 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 42 00:1a:5 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 43 00:1a:5 0 EOF\n";
        assert_eq!(holder_in(locks, 5), Some(42));
        assert_eq!(holder_in(locks, 6), None);
        assert_eq!(holder_in("nonsense", 5), None);
    }

    #[test]
    fn a_lock_of_our_own_is_found() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(holder(&file), None);
        file.lock().unwrap();
        let found = holder(&file).unwrap();
        assert!(
            found.ends_with(&format!("(pid {})", std::process::id())),
            "{found}"
        );
    }
}
