//! Directories in directories that several share, and that the last of them takes away: the root of pins, the parent of
//! cgroups, the files of labs. Removing one needs no care (rmdir(2) refuses what is not empty), making one does.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// How often others may take a parent away, empty as it still is, before something is made in it.
const TRIES: usize = 1000;

/// Creates a directory with its parents, which others may remove meanwhile; it is fine if it exists.
pub fn create_all(path: &Path) -> io::Result<()> {
    // A parent that was there and then was not is told as one that is no directory.
    let lost = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::AlreadyExists);
    again_while(lost, || fs::create_dir_all(path))
}

/// The same for one that must not exist: of several who try, all but one get [`ErrorKind::AlreadyExists`].
pub fn create_own(path: &Path) -> io::Result<()> {
    let lost = |kind| kind == ErrorKind::NotFound;
    again_while(lost, || {
        path.parent().map_or(Ok(()), create_all)?;
        fs::create_dir(path)
    })
}

fn again_while(
    lost: impl Fn(ErrorKind) -> bool,
    create: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    for _ in 1..TRIES {
        match create() {
            Err(error) if lost(error.kind()) => {}
            other => return other,
        }
    }
    create()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes and removes a directory while somebody else removes its parents whenever they are empty.
    fn contested(create: impl Fn(&Path) -> io::Result<()> + Sync) {
        let top = tempfile::tempdir().unwrap();
        let parents = [top.path().join("a/b"), top.path().join("a")];
        let done = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(relaxed) {
                    for parent in &parents {
                        let _ = fs::remove_dir(parent);
                    }
                    std::thread::sleep(std::time::Duration::from_micros(1));
                }
            });
            let own = parents[0].join("own");
            let outcome = (0..2000).try_for_each(|_| {
                create(&own)?;
                fs::remove_dir(&own)
            });
            done.store(true, relaxed);
            outcome
        });
        outcome.unwrap();
    }

    #[test]
    fn parents_may_go_meanwhile() {
        contested(create_all);
        contested(create_own);
    }

    #[test]
    fn one_of_ones_own_is_nobody_elses() {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join("a/own");
        create_own(&own).unwrap();
        assert_eq!(
            create_own(&own).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        create_all(&own).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_told() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("file");
        fs::write(&file, "").unwrap();
        for create in [create_all, create_own] {
            assert!(create(&file).is_err());
            assert!(create(&file.join("own")).is_err());
        }
    }
}
