//! One proxy per node: two would undo each other's rules.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;
use seaway_kernel::file_lock;

/// Held for as long as the daemon lives; the kernel releases it however the process ends.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Takes `<run_dir>/proxy.lock`, or says which process has it.
    pub fn take(run_dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(run_dir)
            .with_context(|| format!("cannot create {} (--run-dir)", run_dir.display()))?;
        let path = run_dir.join("proxy.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file_lock::take(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).unwrap_or_default();
                anyhow::bail!(
                    "another seaway-proxy (pid {}) runs on this node and holds {}; stop it first",
                    holder.trim(),
                    path.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write the pid into {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_hears_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = NodeLock::take(dir.path()).unwrap();
        let refusal = NodeLock::take(dir.path()).unwrap_err().to_string();
        assert!(
            refusal.contains(&format!("pid {}", std::process::id())),
            "{refusal}"
        );
        drop(held);
        NodeLock::take(dir.path()).unwrap();
    }
}
