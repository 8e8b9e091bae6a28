//! The lock that all users of legacy iptables share, taken by us so that waiting for it can be measured and its
//! holder named. The nft variant needs none: its changes are transactions.
//!
//! The program wants the lock too. While we hold it, the program is given another file to lock (`XTABLES_LOCKFILE`,
//! iptables 1.8.3); a program that does not know this is left to wait for itself, and our wait is measured before.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use seaway_kernel::file_lock::holder;

use crate::dataplane::ApplyError;

#[cfg(test)]
mod tests;

/// Where everybody looks for it.
pub const PATH: &str = "/run/xtables.lock";

/// What tells the program which file to lock.
pub const VARIABLE: &str = "XTABLES_LOCKFILE";

/// A file that is always there and that nobody else locks.
pub const NOBODYS: &str = "/dev/null";

/// Longest wait; somebody who holds it longer has a problem that waiting does not solve.
pub const LIMIT: Duration = Duration::from_secs(5);

/// First pause between two attempts; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(16);

/// Held until dropped.
#[derive(Debug)]
pub struct Held {
    _file: File,
    /// How long it took to get.
    pub waited: Duration,
}

/// Takes the lock. `None` where there is nothing to lock (a file system without `/run`, or one that cannot be
/// written): whoever locks there locks another file than we could.
pub async fn take(path: &Path, limit: Duration) -> Result<Option<Held>, ApplyError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let Ok(file) = opened else { return Ok(None) };
    let started = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        match file.try_lock() {
            Ok(()) => {
                let waited = started.elapsed();
                return Ok(Some(Held {
                    _file: file,
                    waited,
                }));
            }
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if started.elapsed() >= limit => {
                return Err(ApplyError::Failed {
                    what: path.display().to_string(),
                    reason: format!(
                        "held for more than {} s by {}",
                        limit.as_secs(),
                        holder(&file).unwrap_or_else(|| "somebody".into())
                    ),
                });
            }
            Err(TryLockError::WouldBlock) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
