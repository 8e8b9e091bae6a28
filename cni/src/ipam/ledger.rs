//! The ledger: `<state dir>/ipam/<network>/<boot id>/<address>`, one small file per address, changed under a file lock
//! and by rename only, so that a kill at any point leaves either the old record or the new one.
//!
//! No pod outlives a reboot, so the records stand under the boot id: what another boot wrote is not looked at, and is
//! removed at the next allocation. That is also why nothing here needs `fsync`: what a power cut may lose or tear
//! belongs to a boot that is over.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::pool::{self, State};
use super::{Entry, Record};
use crate::protocol::{Code, Error, OwnerKey};

/// How long another process may hold the lock before we give up; it is held for milliseconds.
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
    #[error(
        "the address ledger entry {} cannot be read ({reason}); no address is given out. If no pod uses that \
         address, remove the file",
        path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error("no address is left in {ranges}: all {size} are in use")]
    Exhausted { ranges: String, size: u128 },
    #[error("container {} has address {address} on {} already; a second ADD needs a DEL first", owner.container_id, owner.ifname)]
    AlreadyOwned { owner: OwnerKey, address: IpAddr },
    #[error("the requested address {address} is not one of {ranges}")]
    OutOfRange { address: IpAddr, ranges: String },
    #[error("the requested address {address} is in use by container {owner}")]
    InUse { address: IpAddr, owner: String },
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        let code = match &error {
            LedgerError::Io { .. } => Code::Io,
            LedgerError::Locked { .. } => Code::TryAgainLater,
            LedgerError::Corrupt { .. } => Code::LedgerCorrupt,
            LedgerError::Exhausted { .. } => Code::Exhausted,
            LedgerError::AlreadyOwned { .. } | LedgerError::InUse { .. } => Code::AlreadyAttached,
            LedgerError::OutOfRange { .. } => Code::InvalidConfig,
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

    /// Opens and locks the ledger of a network, and makes it if there is none.
    pub fn open(state_dir: &Path, network: &str) -> Result<Self, LedgerError> {
        let boot = "/proc/sys/kernel/random/boot_id";
        let boot_id = fs::read_to_string(boot).map_err(|e| failed("read", Path::new(boot), e))?;
        Self::open_for_boot(state_dir, network, boot_id.trim())
    }

    fn open_for_boot(state_dir: &Path, network: &str, boot_id: &str) -> Result<Self, LedgerError> {
        let base = Self::root(state_dir).join(network);
        let directory = base.join(boot_id);
        fs::create_dir_all(&directory).map_err(|e| failed("create", &directory, e))?;
        let lock = lock(&base.join("lock"))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// All records, by address.
    pub fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = Vec::new();
        for name in self.names()? {
            let Ok(address) = name.parse() else { continue };
            let path = self.directory.join(&name);
            let content = fs::read(&path).map_err(|e| failed("read", &path, e))?;
            entries.push(Entry::parse(address, &content));
        }
        entries.sort_by_key(|entry| entry.address);
        Ok(entries)
    }

    /// Gives an attachment one address of every range, or the requested one of its family; all or none. `now` is the
    /// time since boot.
    pub fn allocate(
        &self,
        owner: &OwnerKey,
        ranges: &[IpNetwork],
        requested: Option<IpAddr>,
        now: Duration,
    ) -> Result<Vec<IpAddr>, LedgerError> {
        self.tidy();
        let entries = self.entries()?;
        self.refuse_corrupt(&entries)?;
        if let Some(entry) = entries.iter().find(|entry| entry.owner() == Some(owner)) {
            return Err(LedgerError::AlreadyOwned {
                owner: owner.clone(),
                address: entry.address,
            });
        }
        let chosen = self.choose(&entries, ranges, requested, now)?;
        for (done, address) in chosen.iter().enumerate() {
            let written = self
                .write(*address, &Record::Owner(owner.clone()))
                .and_then(|()| self.remember(*address));
            if let Err(error) = written {
                for address in &chosen[..=done] {
                    let _ = fs::remove_file(self.path(*address));
                }
                return Err(error);
            }
        }
        Ok(chosen)
    }

    /// Frees what an attachment has, and answers what that was.
    pub fn release(&self, owner: &OwnerKey, now: Duration) -> Result<Vec<IpAddr>, LedgerError> {
        let entries = self.entries()?;
        let owned: Vec<_> = entries
            .iter()
            .filter(|entry| entry.owner() == Some(owner))
            .map(|entry| entry.address)
            .collect();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        for address in &owned {
            self.write(*address, &Record::FreedAt(millis))?;
        }
        Ok(owned)
    }

    /// When a record was written last.
    pub fn modified(&self, address: IpAddr) -> Result<std::time::SystemTime, LedgerError> {
        let path = self.path(address);
        fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .map_err(|e| failed("examine", &path, e))
    }

    /// The file of an address.
    pub fn path(&self, address: IpAddr) -> PathBuf {
        self.directory.join(address.to_string())
    }

    fn choose(
        &self,
        entries: &[Entry],
        ranges: &[IpNetwork],
        requested: Option<IpAddr>,
        now: Duration,
    ) -> Result<Vec<IpAddr>, LedgerError> {
        let listed = || ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
        if let Some(address) = requested
            && !ranges.iter().any(|range| pool::contains(*range, address))
        {
            let ranges = listed().join(", ");
            return Err(LedgerError::OutOfRange { address, ranges });
        }
        let states: BTreeMap<IpAddr, State> =
            entries.iter().map(|e| (e.address, e.state())).collect();
        ranges
            .iter()
            .map(|&range| match requested {
                Some(address) if range.contains(address) => in_use(entries, address),
                _ => pool::next(range, &states, self.last(range), now).ok_or_else(|| {
                    LedgerError::Exhausted {
                        ranges: listed().join(", "),
                        size: pool::size(range),
                    }
                }),
            })
            .collect()
    }

    fn refuse_corrupt(&self, entries: &[Entry]) -> Result<(), LedgerError> {
        match entries
            .iter()
            .find_map(|e| Some((e, e.record.as_ref().err()?)))
        {
            None => Ok(()),
            Some((entry, reason)) => Err(LedgerError::Corrupt {
                path: self.path(entry.address),
                reason: reason.clone(),
            }),
        }
    }

    /// The last address given out of a range's family; unreadable means none.
    fn last(&self, range: IpNetwork) -> Option<IpAddr> {
        fs::read_to_string(self.directory.join(last_name(range.is_ipv4())))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn remember(&self, address: IpAddr) -> Result<(), LedgerError> {
        let path = self.directory.join(last_name(address.is_ipv4()));
        self.put(&path, address.to_string().as_bytes())
    }

    fn write(&self, address: IpAddr, record: &Record) -> Result<(), LedgerError> {
        let path = self.path(address);
        let content = serde_json::to_vec(record).map_err(|e| failed("write", &path, e.into()))?;
        self.put(&path, &content)
    }

    fn put(&self, path: &Path, content: &[u8]) -> Result<(), LedgerError> {
        let temporary = self.directory.join(TEMPORARY);
        fs::write(&temporary, content)
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(|e| failed("write", path, e))
    }

    fn names(&self) -> Result<Vec<String>, LedgerError> {
        fs::read_dir(&self.directory)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                    .collect()
            })
            .map_err(|e| failed("list", &self.directory, e))
    }

    /// Removes what other boots left. Nobody depends on it, so a failure is not reported.
    fn tidy(&self) {
        let siblings = self
            .directory
            .parent()
            .and_then(|base| fs::read_dir(base).ok());
        for sibling in siblings.into_iter().flatten().flatten() {
            let path = sibling.path();
            if path != self.directory && path.is_dir() {
                let _ = fs::remove_dir_all(path);
            }
        }
    }
}

/// Only the holder of the lock writes, so one name is enough; what a kill leaves is overwritten.
const TEMPORARY: &str = ".new";

fn last_name(ipv4: bool) -> &'static str {
    if ipv4 { ".last4" } else { ".last6" }
}

fn in_use(entries: &[Entry], address: IpAddr) -> Result<IpAddr, LedgerError> {
    let taken = entries
        .iter()
        .find_map(|entry| entry.owner().filter(|_| entry.address == address));
    match taken {
        None => Ok(address),
        Some(owner) => Err(LedgerError::InUse {
            address,
            owner: owner.container_id.clone(),
        }),
    }
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
                thread::sleep(Duration::from_millis(1));
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
mod tests;
