//! Counts by frontend, as the programs write them; and the counters that user space writes itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::libc;
use seaway_ebpf_abi::{FrontendKey, Verdict, maps};

use super::error::EbpfError;
use super::sys;

/// Elements read in one call, each with a word for every CPU; and looked at while a change of Services has to wait.
const CHUNK: usize = 512;

/// The map of counts by frontend.
#[derive(Debug)]
pub(super) struct Tallies {
    fd: OwnedFd,
    cpus: usize,
}

impl Tallies {
    /// Opens the map pinned in `dir`; `None` if there is none.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, EbpfError> {
        let opened = open(dir, maps::TALLIES, size_of::<FrontendKey>())?;
        Ok(opened.map(|(fd, cpus)| Self { fd, cpus }))
    }

    /// Hands over all of them in portions, summed over CPUs. What is counted meanwhile may or may not be seen.
    pub(super) fn each(
        &self,
        mut portion: impl FnMut(&[(FrontendKey, u64)]),
    ) -> Result<(), EbpfError> {
        let mut keys = vec![FrontendKey::default(); CHUNK];
        let mut values = vec![0_u64; CHUNK * self.cpus];
        let mut entries = Vec::with_capacity(CHUNK);
        let mut cursor = sys::Cursor::default();
        loop {
            match sys::map_lookup_batch(self.fd.as_fd(), &mut cursor, &mut keys, &mut values) {
                Ok((count, last)) => {
                    let sums = values.chunks_exact(self.cpus).map(|v| v.iter().sum());
                    entries.clear();
                    entries.extend(keys.iter().copied().zip(sums).take(count));
                    portion(&entries);
                    if last {
                        return Ok(());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    keys.resize(2 * keys.len(), FrontendKey::default());
                    values.resize(2 * values.len(), 0);
                }
                Err(error) => return Err(EbpfError::map("read", maps::TALLIES, error)),
            }
        }
    }

    /// Deletes one; it is fine if it is not there.
    pub(super) fn delete(&self, key: &FrontendKey) -> Result<(), EbpfError> {
        match sys::map_delete(self.fd.as_fd(), key) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(EbpfError::map("delete from", maps::TALLIES, error))
            }
            _ => Ok(()),
        }
    }
}

/// The counters, of which some are written by no program, and by one process at a time.
#[derive(Debug)]
pub(super) struct OwnCounters {
    fd: OwnedFd,
    cpus: usize,
}

/// Held by the thread that reads a counter and writes it again.
static COUNTING: Mutex<()> = Mutex::new(());

impl OwnCounters {
    /// Opens the map pinned in `dir`; `None` if there is none.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, EbpfError> {
        let opened = open(dir, maps::COUNTERS, size_of::<u32>())?;
        Ok(opened.map(|(fd, cpus)| Self { fd, cpus }))
    }

    /// One of all counters, summed over CPUs.
    pub(super) fn get(&self, verdict: Verdict) -> Result<u64, EbpfError> {
        Ok(self.read(verdict)?.iter().sum())
    }

    fn read(&self, verdict: Verdict) -> Result<Vec<u64>, EbpfError> {
        let mut values = vec![0_u64; self.cpus];
        sys::map_lookup(self.fd.as_fd(), &(verdict as u32), &mut values)
            .map_err(|error| EbpfError::map("read", maps::COUNTERS, error))?;
        Ok(values)
    }

    /// Adds to one that no program writes.
    pub(super) fn add(&self, verdict: Verdict, more: u64) -> Result<(), EbpfError> {
        if more == 0 {
            return Ok(());
        }
        let _alone = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = self.read(verdict)?;
        let Some(first) = values.first_mut() else {
            return Ok(());
        };
        *first += more;
        sys::map_update_all(self.fd.as_fd(), &(verdict as u32), &values)
            .map_err(|error| EbpfError::map("write", maps::COUNTERS, error))
    }
}

/// A per-CPU map of words with keys of that size, and how many words its values have.
fn open(
    dir: &Path,
    name: &'static str,
    key_size: usize,
) -> Result<Option<(OwnedFd, usize)>, EbpfError> {
    let path = dir.join(name);
    let failed = |error| EbpfError::map("open", name, error);
    let fd = match sys::open_pin(&path) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let info = sys::map_info(fd.as_fd()).map_err(failed)?;
    if (info.key_size as usize, info.value_size as usize) != (key_size, size_of::<u64>()) {
        return Err(EbpfError::ForeignMap { path });
    }
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(error))?;
    Ok(Some((fd, cpus)))
}
