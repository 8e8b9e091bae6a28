//! The lock (flock(2)) of a file: taking it, and who holds it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

/// How long a killed daemon may seem to be there.
const LINGER: Duration = Duration::from_secs(1);

/// Takes the lock for a daemon of which there is one. What a killed one was about to run holds its lock, too, from fork(2) to
/// execve(2): so whoever follows it at once has to wait for a moment.
pub fn take(file: &File) -> Result<(), TryLockError> {
    let deadline = Instant::now() + LINGER;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

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
    fn a_lock_that_is_about_to_go_is_waited_for_and_no_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [held, wanted] = [(); 2].map(|()| File::open(file.path()).unwrap());
        held.lock().unwrap();
        assert!(matches!(take(&wanted), Err(TryLockError::WouldBlock)));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                held.unlock().unwrap();
            });
            take(&wanted).unwrap();
        });
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
