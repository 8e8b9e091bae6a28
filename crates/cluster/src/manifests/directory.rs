//! The files of the directory and what they held when last read.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::parse;
use crate::convert::{Object, ObjectRef};
use crate::intern::Interner;

/// What one look at the directory found.
#[derive(Debug, Default)]
pub(super) struct Poll {
    /// Objects may differ from before.
    pub(super) changed: bool,
    /// The directory could be listed, and no file in it is still being written.
    pub(super) complete: bool,
    /// New problems, in words; an old one is not repeated while its file stays as it is.
    pub(super) problems: Vec<String>,
}

/// Tells whether a file is the one that we read: in-place writes change the times, renames the inode.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// How long a file must have been left alone before it is read.
const SETTLED: Duration = Duration::from_millis(50);

impl Stamp {
    /// Written just now: its writer may not be done.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (
            u64::try_from(self.modified.0),
            u32::try_from(self.modified.1),
        ) else {
            return false;
        };
        // A time in the future is a wrong clock's, and says nothing.
        now.duration_since(UNIX_EPOCH + Duration::new(seconds, nanos))
            .is_ok_and(|age| age < SETTLED)
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    objects: BTreeMap<ObjectRef, Object>,
}

/// A directory under observation.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    names: Interner,
    unreadable: bool,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            files: BTreeMap::new(),
            names: Interner::default(),
            unreadable: false,
        }
    }

    /// Reads what has changed since the last poll.
    pub(super) fn poll(&mut self, now: SystemTime) -> Poll {
        let mut poll = Poll::default();
        let present = match list(&self.path) {
            Ok(present) => present,
            Err(error) => {
                // Not an empty directory: what was read stays in force until it can be read again.
                if !std::mem::replace(&mut self.unreadable, true) {
                    poll.problems.push(format!(
                        "{}: {error}; its last known objects stay in force",
                        self.path.display()
                    ));
                }
                return poll;
            }
        };
        self.unreadable = false;
        poll.complete = true;
        let before = self.files.len();
        self.files.retain(|path, _| present.contains_key(path));
        poll.changed |= self.files.len() != before;
        for (path, stamp) in present {
            let file = self.files.entry(path.clone()).or_default();
            if file.stamp.as_ref() == Some(&stamp) {
                continue;
            }
            if stamp.is_fresh(now) {
                // Half a file would be half of its objects deleted.
                poll.complete = false;
                continue;
            }
            file.stamp = Some(stamp);
            poll.changed = true;
            match fs::read_to_string(&path) {
                Ok(text) => file.read(&path, &text, &mut self.names, &mut poll.problems),
                Err(error) => poll.problems.push(format!("{}: {error}", path.display())),
            }
        }
        if poll.changed {
            self.report_duplicates(&mut poll.problems);
        }
        poll
    }

    /// All objects; of several with one name the one in the last file (by name) counts.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        let mut merged = BTreeMap::new();
        for file in self.files.values() {
            merged.extend(file.objects.iter());
        }
        merged.into_values()
    }

    fn report_duplicates(&self, problems: &mut Vec<String>) {
        let mut owners: BTreeMap<&ObjectRef, &Path> = BTreeMap::new();
        for (path, file) in &self.files {
            for reference in file.objects.keys() {
                if let Some(other) = owners.insert(reference, path) {
                    problems.push(format!(
                        "{reference} is in {} and in {}: the latter counts",
                        other.display(),
                        path.display()
                    ));
                }
            }
        }
    }
}

impl File {
    fn read(&mut self, path: &Path, text: &str, names: &mut Interner, problems: &mut Vec<String>) {
        let parsed = parse(text);
        for (document, reason) in &parsed.broken {
            problems.push(format!(
                "{}: document {document}: {reason}; earlier objects of this file stay in force",
                path.display()
            ));
        }
        // Which object a broken document meant is not known, so none of the file's may be taken for deleted.
        if parsed.broken.is_empty() {
            self.objects.clear();
        }
        for object in parsed.objects {
            self.objects.insert(object.reference(names), object);
        }
    }
}

fn list(directory: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let manifest = path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !manifest || hidden {
            continue;
        }
        // Gone again, or a dangling link: as if it were not there.
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            files.insert(path, Stamp::of(&metadata));
        }
    }
    Ok(files)
}
