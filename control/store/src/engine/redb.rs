//! One redb file: the records, the log, and three numbers.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Engine, Loaded};
use crate::error::StoreError;
use crate::record::{Event, EventKind, Record, Revision};

/// Written into new files; a file with another number is not touched.
const LAYOUT: u64 = 1;
const FILE: &str = "state.redb";
/// Everything is read once, at start, and kept in the store's own memory: a large page cache would hold it twice.
const CACHE_BYTES: usize = 8 << 20;
/// Log rows removed per transaction, so that compaction never holds up writers for long.
const COMPACT_STEP: u64 = 2_000;

/// (bucket, key) -> (revision, value)
const RECORDS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("records");
/// revision -> (bucket, key, is delete, milliseconds, value, revision of the replaced version or 0, its value)
type LogRow = (
    &'static str,
    &'static str,
    bool,
    u64,
    &'static [u8],
    u64,
    &'static [u8],
);
const LOG: TableDefinition<'_, u64, LogRow> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

pub(crate) struct Redb {
    database: Database,
    compacted: Revision,
}

impl Redb {
    pub(crate) fn open(dir: &Path) -> Result<(Self, Loaded), StoreError> {
        let path = dir.join(FILE);
        let file = open_file(dir, &path)?;
        let database = FileBackend::new(file)
            .and_then(|file| {
                Database::builder()
                    .set_cache_size(CACHE_BYTES)
                    .create_with_backend(file)
            })
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.clone() },
                other => StoreError::Damaged {
                    path: path.clone(),
                    reason: other.to_string(),
                },
            })?;
        let loaded = load(&database, &path)?;
        Ok((
            Self {
                database,
                compacted: loaded.compacted,
            },
            loaded,
        ))
    }
}

fn open_file(dir: &Path, path: &Path) -> Result<File, StoreError> {
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |error: std::io::Error| StoreError::Io {
            action,
            path,
            reason: error.to_string(),
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io("create", dir))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io("open", path))
}

fn load(database: &Database, path: &Path) -> Result<Loaded, StoreError> {
    let fresh = initialise(database).map_err(|error| damaged(path, &error))?;
    if let Some(found) = fresh {
        return Err(StoreError::Layout {
            path: path.to_path_buf(),
            found,
            expected: LAYOUT,
        });
    }
    read_all(database).map_err(|error| damaged(path, &error))
}

fn damaged(path: &Path, error: &redb::Error) -> StoreError {
    StoreError::Damaged {
        path: PathBuf::from(path),
        reason: error.to_string(),
    }
}

/// Creates the tables of a new file; answers the layout of an old one when it is not ours.
fn initialise(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(LOG)?;
        let found = meta.get("layout")?.map(|value| value.value());
        if found.is_none() {
            meta.insert("layout", LAYOUT)?;
        }
        found
    };
    match found {
        Some(found) if found != LAYOUT => {
            transaction.abort()?;
            return Ok(Some(found));
        }
        Some(_) => transaction.abort()?,
        None => transaction.commit()?,
    }
    Ok(None)
}

fn read_all(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name: &str| -> Result<u64, redb::Error> {
        Ok(meta.get(name)?.map_or(0, |value| value.value()))
    };
    let mut loaded = Loaded {
        revision: number("revision")?,
        compacted: number("compacted")?,
        ..Loaded::default()
    };
    let mut names: HashMap<String, Arc<str>> = HashMap::new();
    let mut intern = |name: &str| {
        names
            .entry(name.to_owned())
            .or_insert_with(|| Arc::from(name))
            .clone()
    };

    // An event and the record that it made are one object in memory, as they were before the restart.
    let mut by_revision: HashMap<Revision, Arc<Record>> = HashMap::new();
    for row in transaction.open_table(RECORDS)?.iter()? {
        let (key, value) = row?;
        let ((bucket, key), (revision, value)) = (key.value(), value.value());
        let record = Record::new(Arc::from(key), revision, Bytes::copy_from_slice(value));
        by_revision.insert(revision, record.clone());
        loaded.records.push((intern(bucket), record));
    }
    for row in transaction.open_table(LOG)?.iter()? {
        let (revision, row) = row?;
        let revision = revision.value();
        let (bucket, key, is_delete, at_millis, value, previous_revision, previous) = row.value();
        let mut record_at = |revision, value: &[u8]| {
            let make = || Record::new(Arc::from(key), revision, Bytes::copy_from_slice(value));
            by_revision.entry(revision).or_insert_with(make).clone()
        };
        let kind = if is_delete {
            EventKind::Delete
        } else {
            EventKind::Put
        };
        let previous = (previous_revision != 0).then(|| record_at(previous_revision, previous));
        let record = record_at(revision, value);
        loaded.events.push(Event {
            kind,
            bucket: intern(bucket),
            record,
            previous,
            at_millis,
        });
    }
    Ok(loaded)
}

impl Engine for Redb {
    fn append(&mut self, events: &[Arc<Event>]) -> Result<(), StoreError> {
        append(&self.database, events).map_err(|error| StoreError::Write(error.to_string()))
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        while self.compacted < revision {
            let step = revision.min(self.compacted + COMPACT_STEP);
            compact(&self.database, step).map_err(|error| StoreError::Write(error.to_string()))?;
            self.compacted = step;
        }
        Ok(())
    }
}

fn append(database: &Database, events: &[Arc<Event>]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut log = transaction.open_table(LOG)?;
        let mut meta = transaction.open_table(META)?;
        for event in events {
            let (bucket, key, value) = (&*event.bucket, &*event.record.key, &*event.record.value);
            let is_delete = event.kind == EventKind::Delete;
            if is_delete {
                records.remove((bucket, key))?;
            } else {
                records.insert((bucket, key), (event.revision(), value))?;
            }
            let (previous_revision, previous) =
                event.previous.as_ref().map_or((0, &[][..]), |previous| {
                    (previous.revision, &*previous.value)
                });
            let row = (
                bucket,
                key,
                is_delete,
                event.at_millis,
                value,
                previous_revision,
                previous,
            );
            log.insert(event.revision(), row)?;
        }
        if let Some(last) = events.last() {
            meta.insert("revision", last.revision())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn compact(database: &Database, revision: Revision) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction
        .open_table(LOG)?
        .retain_in(..=revision, |_, _| false)?;
    transaction
        .open_table(META)?
        .insert("compacted", revision)?;
    transaction.commit()?;
    Ok(())
}
