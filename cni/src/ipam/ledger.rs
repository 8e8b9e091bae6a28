//! The ledger: `<root>/<network>/<boot id>/`, one small file per address, changed under a file lock and by rename only, so
//! that a kill at any point leaves either the old state or the new one.
//!
//! No pod outlives a reboot, so the files stand under the boot id: what another boot wrote is not looked at, and is
//! removed at the next allocation. That is also why nothing here needs `fsync`: what a power cut may lose or tear
//! belongs to a boot that is over.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::pool::{self, State};
use super::{Entry, Lease, Range};
use crate::attachment::digits;
use crate::protocol::{Code, Error, OwnerKey};

/// How long another process may hold the lock before we give up; it is held for a millisecond.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Why the ledger did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {operation} {}: {cause}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    #[error("the address ledger {} is locked by another process for more than {LOCK_LIMIT:?}", path.display())]
    Locked { path: PathBuf },
    #[error("no address is left in {ranges}: all {size} are in use")]
    Exhausted { ranges: String, size: u128 },
    #[error("container {} has address {address} on {} already; a second ADD needs a DEL first", owner.container_id, owner.ifname)]
    AlreadyOwned { owner: OwnerKey, address: IpAddr },
    #[error("the requested address {address} is not one of {ranges}")]
    OutOfRange { address: IpAddr, ranges: String },
    #[error("the requested address {address} is one of the same range as another requested one")]
    Surplus { address: IpAddr },
    #[error("the requested address {address} is in use by container {owner}")]
    InUse { address: IpAddr, owner: String },
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        let code = match &error {
            LedgerError::Io { .. } => Code::Io,
            LedgerError::Locked { .. } => Code::TryAgainLater,
            LedgerError::Exhausted { .. } => Code::Exhausted,
            LedgerError::AlreadyOwned { .. } | LedgerError::InUse { .. } => Code::AlreadyAttached,
            LedgerError::OutOfRange { .. } | LedgerError::Surplus { .. } => Code::InvalidConfig,
        };
        Self::new(code, error.to_string())
    }
}

/// The ledger of one network, locked for as long as this lives.
#[derive(Debug)]
pub struct Ledger {
    /// Of this boot.
    directory: PathBuf,
    _lock: File,
}

impl Ledger {
    /// The directory of all networks.
    pub fn root(state_dir: &Path) -> PathBuf {
        state_dir.join("ipam")
    }

    /// Opens and locks the ledger of a network below that root, and makes it if there is none.
    pub fn open(root: &Path, network: &str) -> Result<Self, LedgerError> {
        Self::open_for_boot(root, network, &boot_id()?)
    }

    /// Opens and locks the ledger if there is one: to free something needs no room on the disk.
    pub fn open_existing(root: &Path, network: &str) -> Result<Option<Self>, LedgerError> {
        if !root.join(network).join(boot_id()?).is_dir() {
            return Ok(None);
        }
        Self::open(root, network).map(Some)
    }

    /// The same as if the machine had been booted under that id.
    pub fn open_for_boot(root: &Path, network: &str, boot_id: &str) -> Result<Self, LedgerError> {
        let base = root.join(network);
        let directory = base.join(boot_id);
        if !directory.is_dir() {
            fs::create_dir_all(&directory).map_err(|e| failed("create", &directory, e))?;
        }
        let lock = lock(&base.join("lock"))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// All addresses that are in use or were freed lately.
    pub fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let mut entries: Vec<_> = fs::read_dir(&self.directory)
            .and_then(|list| {
                list.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()))
                    .collect::<io::Result<Vec<_>>>()
            })
            .map_err(|e| failed("list", &self.directory, e))?
            .iter()
            .filter_map(|name| Entry::parse(name))
            .collect();
        entries.sort();
        Ok(entries)
    }

    /// What stands in the file of an address that is in use; `Err` says what is wrong with it. Such an address stays in
    /// use, and is freed as any other.
    pub fn lease(&self, entry: &Entry) -> Result<Lease, String> {
        let content = fs::read(self.path(entry)).map_err(|e| e.to_string())?;
        serde_json::from_slice(&content).map_err(|e| e.to_string())
    }

    /// Gives an attachment one address of every list of ranges, or the requested ones where they belong; all or none.
    /// `now` is the time since boot.
    pub fn allocate(
        &self,
        lease: &Lease,
        lists: &[Vec<Range>],
        requested: &[IpAddr],
        now: Duration,
    ) -> Result<Vec<IpAddr>, LedgerError> {
        let entries = self.entries()?;
        self.tidy(&entries, now);
        let states = states(&entries);
        self.refuse_second(&lease.owner, &entries)?;
        let chosen = self.choose(&entries, &states, lists, requested, now)?;
        self.record(lease, &entries, &chosen)?;
        for (index, address) in chosen.iter().enumerate() {
            // Only where to go on: without it the search begins at the front.
            let _ = self.put(&last_name(index), address.to_string().as_bytes());
        }
        Ok(chosen)
    }

    /// Gives an attachment these addresses, whatever ranges there are.
    pub fn reserve(&self, lease: &Lease, addresses: &[IpAddr]) -> Result<(), LedgerError> {
        let entries = self.entries()?;
        self.refuse_second(&lease.owner, &entries)?;
        for address in addresses {
            self.refuse_used(&entries, *address)?;
        }
        self.record(lease, &entries, addresses)
    }

    /// The first list of ranges that has no address left.
    pub fn exhausted<'a>(
        &self,
        lists: &'a [Vec<Range>],
        now: Duration,
    ) -> Result<Option<&'a [Range]>, LedgerError> {
        let states = states(&self.entries()?);
        let is_full = |list: &&Vec<Range>| pool::next(list, &states, None, now).is_none();
        Ok(lists.iter().find(is_full).map(Vec::as_slice))
    }

    /// Frees what an attachment has, and answers what that was.
    pub fn release(&self, owner: &OwnerKey, now: Duration) -> Result<Vec<IpAddr>, LedgerError> {
        self.release_digits(&digits(owner), now)
    }

    /// Frees what the attachment with these digits has.
    pub fn release_digits(&self, digits: &str, now: Duration) -> Result<Vec<IpAddr>, LedgerError> {
        let mut freed = Vec::new();
        for entry in self.entries()?.iter().filter(|entry| entry.is_of(digits)) {
            let address = entry.address();
            let path = self.path(entry);
            let to = self.path(&Entry::Freed { address, at: now });
            // Where not even a rename is possible, quarantine is what can be done without.
            fs::rename(&path, to)
                .or_else(|_| fs::remove_file(&path))
                .map_err(|e| failed("free", &path, e))?;
            freed.push(address);
        }
        Ok(freed)
    }

    /// The file of an entry.
    pub fn path(&self, entry: &Entry) -> PathBuf {
        self.directory.join(entry.name())
    }

    fn refuse_second(&self, owner: &OwnerKey, entries: &[Entry]) -> Result<(), LedgerError> {
        let digits = digits(owner);
        match entries.iter().find(|entry| entry.is_of(&digits)) {
            None => Ok(()),
            Some(entry) => Err(LedgerError::AlreadyOwned {
                owner: owner.clone(),
                address: entry.address(),
            }),
        }
    }

    fn refuse_used(&self, entries: &[Entry], address: IpAddr) -> Result<(), LedgerError> {
        let used = entries
            .iter()
            .find(|e| e.address() == address && matches!(e, Entry::InUse { .. }));
        match used {
            None => Ok(()),
            Some(entry) => Err(LedgerError::InUse {
                address,
                owner: self.lease(entry).map_or_else(
                    |reason| format!("unknown ({reason})"),
                    |lease| lease.owner.container_id,
                ),
            }),
        }
    }

    fn choose(
        &self,
        entries: &[Entry],
        states: &BTreeMap<IpAddr, State>,
        lists: &[Vec<Range>],
        requested: &[IpAddr],
        now: Duration,
    ) -> Result<Vec<IpAddr>, LedgerError> {
        let listed = |lists: &[Vec<Range>]| {
            let texts: Vec<_> = lists.iter().flatten().map(ToString::to_string).collect();
            texts.join(", ")
        };
        let is_of = |list: &[Range], address: IpAddr| list.iter().any(|r| r.contains(address));
        let mut left = requested.to_vec();
        let mut chosen = Vec::new();
        for (index, list) in lists.iter().enumerate() {
            let wanted = left.iter().position(|address| is_of(list, *address));
            chosen.push(match wanted.map(|at| left.remove(at)) {
                Some(address) => {
                    self.refuse_used(entries, address)?;
                    address
                }
                None => pool::next(list, states, self.last(index), now).ok_or_else(|| {
                    LedgerError::Exhausted {
                        ranges: listed(std::slice::from_ref(list)),
                        size: list.iter().map(Range::size).sum(),
                    }
                })?,
            });
        }
        match left.first() {
            None => Ok(chosen),
            Some(&address) if lists.iter().any(|list| is_of(list, address)) => {
                Err(LedgerError::Surplus { address })
            }
            Some(&address) => Err(LedgerError::OutOfRange {
                address,
                ranges: listed(lists),
            }),
        }
    }

    /// Writes the files of the chosen addresses; all or none.
    fn record(
        &self,
        lease: &Lease,
        entries: &[Entry],
        chosen: &[IpAddr],
    ) -> Result<(), LedgerError> {
        let content =
            serde_json::to_vec(lease).map_err(|e| failed("write", &self.directory, e.into()))?;
        for (done, &address) in chosen.iter().enumerate() {
            let name = Entry::of(address, &lease.owner).name();
            if let Err(error) = self.put(&name, &content) {
                for &address in &chosen[..=done] {
                    let _ = fs::remove_file(self.path(&Entry::of(address, &lease.owner)));
                }
                return Err(error);
            }
            // A file that says when it was freed last would outlive this use.
            for freed in entries.iter().filter(|e| e.address() == address) {
                let _ = fs::remove_file(self.path(freed));
            }
        }
        Ok(())
    }

    /// The last address given out of a list of ranges; unreadable means none.
    fn last(&self, index: usize) -> Option<IpAddr> {
        fs::read_to_string(self.directory.join(last_name(index)))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<(), LedgerError> {
        let (temporary, path) = (self.directory.join(TEMPORARY), self.directory.join(name));
        fs::write(&temporary, content)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|e| {
                let _ = fs::remove_file(&temporary);
                failed("write", &path, e)
            })
    }

    /// Removes what other boots left, and what was freed long ago. Nobody depends on it, so a failure is not reported.
    fn tidy(&self, entries: &[Entry], now: Duration) {
        for entry in entries {
            if matches!(entry, Entry::Freed { .. }) && !entry.state().is_quarantined(now) {
                let _ = fs::remove_file(self.path(entry));
            }
        }
        let siblings = self
            .directory
            .parent()
            .and_then(|base| fs::read_dir(base).ok());
        for sibling in siblings.into_iter().flatten().flatten() {
            let path = sibling.path();
            if path != self.directory && is_boot_id(&sibling.file_name().to_string_lossy()) {
                remove_ledger(&path);
            }
        }
    }
}

/// By address. A kill may leave the file of its last use beside that of its present one.
pub(super) fn states(entries: &[Entry]) -> BTreeMap<IpAddr, State> {
    let (used, freed): (Vec<_>, Vec<_>) = entries
        .iter()
        .map(|entry| (entry.address(), entry.state()))
        .partition(|(_, state)| *state == State::Taken);
    freed.into_iter().chain(used).collect()
}

/// Only the holder of the lock writes, so one name is enough; what a kill leaves is overwritten.
const TEMPORARY: &str = ".new";

/// Before the number of a list of ranges.
const LAST: &str = ".last.";

fn last_name(index: usize) -> String {
    format!("{LAST}{index}")
}

/// Whether a file was written by this ledger, whole or torn.
fn is_of_ledger(name: &str) -> bool {
    let address = name.split(['@', '~']).next().unwrap_or_default();
    name == TEMPORARY || name.starts_with(LAST) || address.parse::<IpAddr>().is_ok()
}

/// As the kernel writes it: 36 hexadecimal digits and dashes.
fn is_boot_id(name: &str) -> bool {
    name.len() == 36 && name.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Removes what is in a ledger's directory, and no other's files: a config names the directory above it (`dataDir`), and the
/// network's name the next one, so they may be anybody's.
fn remove_ledger(directory: &Path) {
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        if is_of_ledger(&file.file_name().to_string_lossy()) {
            let _ = fs::remove_file(file.path());
        }
    }
    // Fails while something else is in it.
    let _ = fs::remove_dir(directory);
}

fn boot_id() -> Result<String, LedgerError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|e| failed("read", path, e))?;
    Ok(text.trim().to_owned())
}

fn lock(path: &Path) -> Result<File, LedgerError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| failed("open", path, e))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_micros(300));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LedgerError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => return Err(failed("lock", path, e)),
        }
    }
}

fn failed(operation: &'static str, path: &Path, cause: io::Error) -> LedgerError {
    LedgerError::Io {
        operation,
        path: path.to_owned(),
        cause,
    }
}

#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;
