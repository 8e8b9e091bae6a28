//! Typed maps, found by their pins.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::libc;
use seaway_ebpf_abi::Plain;

use super::census::MapUse;
use super::error::EbpfError;
use super::{bpffs, sys};

/// Elements written or read in one call. Larger than any bucket of a hash table that is not under attack.
const CHUNK: usize = 4096;
/// The same of elements that are large, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// A hash map in the kernel, or an array with `u32` keys.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    name: &'static str,
    fd: OwnedFd,
    max_entries: u32,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain + Default, V: Plain + Default> Table<K, V> {
    const CHUNK: usize = match CHUNK_BYTES / size_of::<V>() {
        fitting if fitting < CHUNK => fitting,
        _ => CHUNK,
    };

    /// Opens the map pinned in `dir` under its name; `None` if there is none.
    pub(super) fn open(dir: &Path, name: &'static str) -> Result<Option<Self>, EbpfError> {
        let path = dir.join(name);
        let failed = |source| EbpfError::map("open", name, source);
        let fd = match sys::open_pin(&path) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let info = sys::map_info(fd.as_fd()).map_err(failed)?;
        if (info.key_size as usize, info.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(EbpfError::ForeignMap { path });
        }
        Ok(Some(Self {
            name,
            fd,
            max_entries: info.max_entries,
            types: PhantomData,
        }))
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// How many entries fit.
    pub(super) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// How many entries there are; lists them.
    pub(super) fn count(&self) -> Result<usize, EbpfError> {
        let mut entries = 0;
        self.each(|keys, _| entries += keys.len())?;
        Ok(entries)
    }

    /// How full it is, with so many entries.
    pub(super) fn usage(&self, entries: usize) -> MapUse {
        MapUse {
            name: self.name,
            entries: entries as u64,
            max_entries: u64::from(self.max_entries),
            memory_bytes: sys::map_memory(self.fd.as_fd()).unwrap_or(0),
            balance: None,
        }
    }

    /// How full it is; listed, if nobody knows how many entries there are.
    pub(super) fn usage_or_count(&self, known: Option<usize>) -> Result<MapUse, EbpfError> {
        Ok(self.usage(known.map_or_else(|| self.count(), Ok)?))
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, EbpfError> {
        let mut value = [V::default()];
        match sys::map_lookup(self.fd.as_fd(), key, &mut value) {
            Ok(()) => Ok(Some(value[0])),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(EbpfError::map("read", self.name, error)),
        }
    }

    pub(super) fn set(&self, key: &K, value: &V) -> Result<(), EbpfError> {
        sys::map_update(self.fd.as_fd(), key, value).map_err(|error| self.write_error(error))
    }

    /// Writes an entry if there is none; whether it did.
    pub(super) fn add(&self, key: &K, value: &V) -> Result<bool, EbpfError> {
        match sys::map_insert(self.fd.as_fd(), key, value) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(self.write_error(error)),
        }
    }

    /// Deletes one entry; it is fine if it is not there.
    pub(super) fn delete(&self, key: &K) -> Result<(), EbpfError> {
        match sys::map_delete(self.fd.as_fd(), key) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(EbpfError::map("delete from", self.name, error))
            }
            _ => Ok(()),
        }
    }

    /// Writes many entries.
    pub(super) fn set_all(&self, entries: &[(K, V)]) -> Result<(), EbpfError> {
        for chunk in entries.chunks(Self::CHUNK) {
            let (keys, values): (Vec<K>, Vec<V>) = chunk.iter().copied().unzip();
            sys::map_update_batch(self.fd.as_fd(), &keys, &values)
                .map_err(|error| self.write_error(error))?;
        }
        Ok(())
    }

    /// Writes those entries that are not there yet; how many those were. Keys are different ones.
    pub(super) fn fill(&self, mut entries: Vec<(K, V)>) -> Result<usize, EbpfError>
    where
        K: Ord,
    {
        let there = self.entries_as(|_| ())?;
        let there: BTreeSet<K> = there.into_iter().map(|(key, ())| key).collect();
        entries.retain(|(key, _)| !there.contains(key));
        self.set_all(&entries)?;
        Ok(entries.len())
    }

    /// Deletes many entries; those that are not there are fine. Returns how many there were.
    pub(super) fn delete_all(&self, keys: &[K]) -> Result<usize, EbpfError> {
        let mut rest = keys;
        let mut deleted = 0;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(CHUNK)];
            let (done, missing) = sys::map_delete_batch(self.fd.as_fd(), chunk)
                .map_err(|error| EbpfError::map("delete from", self.name, error))?;
            deleted += done;
            rest = &rest[(done + usize::from(missing)).min(rest.len())..];
        }
        Ok(deleted)
    }

    /// All entries. The map may change meanwhile: then what changed may or may not be seen, and an entry may be seen
    /// twice.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, EbpfError> {
        self.entries_as(|value| value)
    }

    /// All entries, of each value what is wanted of it.
    pub(super) fn entries_as<T>(&self, of: impl Fn(V) -> T) -> Result<Vec<(K, T)>, EbpfError> {
        let mut entries = Vec::new();
        self.each(|keys, values| {
            let wanted = values.iter().map(|value| of(*value));
            entries.extend(keys.iter().copied().zip(wanted));
        })?;
        Ok(entries)
    }

    /// Whether there are so many entries, all of them as `is` says. Keeps none.
    pub(super) fn holds(
        &self,
        count: usize,
        is: impl Fn(&K, &V) -> bool,
    ) -> Result<bool, EbpfError> {
        let (mut seen, mut same) = (0, true);
        self.each(|keys, values| {
            seen += keys.len();
            same = same && keys.iter().zip(values).all(|(key, value)| is(key, value));
        })?;
        Ok(same && seen == count)
    }

    /// Hands over all entries in portions, likewise.
    fn each(&self, mut portion: impl FnMut(&[K], &[V])) -> Result<(), EbpfError> {
        let mut keys = vec![K::default(); Self::CHUNK];
        let mut values = vec![V::default(); Self::CHUNK];
        let mut cursor = sys::Cursor::default();
        loop {
            match sys::map_lookup_batch(self.fd.as_fd(), &mut cursor, &mut keys, &mut values) {
                Ok((count, last)) => {
                    portion(&keys[..count], &values[..count]);
                    if last {
                        return Ok(());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    keys.resize(2 * keys.len(), K::default());
                    values.resize(2 * values.len(), V::default());
                }
                Err(error) => return Err(EbpfError::map("read", self.name, error)),
            }
        }
    }

    /// Puts a copy of this map of another size in the place of its pin. Who has the map open goes on with the old one.
    pub(super) fn replace_pin(&self, dir: &Path, max_entries: u32) -> Result<(), EbpfError> {
        let failed = |error| EbpfError::map("enlarge", self.name, error);
        let info = sys::map_info(self.fd.as_fd()).map_err(failed)?;
        let copy = Self {
            name: self.name,
            fd: sys::map_create_like(&info, max_entries).map_err(failed)?,
            max_entries,
            types: PhantomData,
        };
        let mut copied = Ok(());
        self.each(|keys, values| {
            if copied.is_ok() {
                copied = sys::map_update_batch(copy.fd.as_fd(), keys, values);
            }
        })?;
        copied.map_err(|error| copy.write_error(error))?;
        let (pin, next) = (dir.join(self.name), dir.join(format!("{}_next", self.name)));
        // Of an attempt that was killed here. (There are no names with dots in this file system.)
        bpffs::unpin(&next)?;
        sys::pin(copy.fd.as_fd(), &next).map_err(|e| EbpfError::file("pin", &next, e))?;
        fs::rename(&next, &pin).map_err(|e| EbpfError::file("rename", &next, e))
    }

    fn write_error(&self, source: io::Error) -> EbpfError {
        if source.raw_os_error() == Some(libc::E2BIG) {
            EbpfError::Full {
                name: self.name,
                entries: self.max_entries,
            }
        } else {
            EbpfError::map("write", self.name, source)
        }
    }
}

/// The counters, summed over CPUs.
pub(super) fn counters(dir: &Path, len: u32) -> Result<Option<Vec<u64>>, EbpfError> {
    let name = seaway_ebpf_abi::maps::COUNTERS;
    let failed = |source| EbpfError::map("read", name, source);
    let fd = match sys::open_pin(&dir.join(name)) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(error))?;
    let mut sums = Vec::with_capacity(len as usize);
    for index in 0..len {
        let mut values = vec![0_u64; cpus];
        sys::map_lookup(fd.as_fd(), &index, &mut values).map_err(failed)?;
        sums.push(values.iter().sum());
    }
    Ok(Some(sums))
}
