//! The file: privacy, locking, damage, and kill -9.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seaway_store::{Options, Store, StoreError};

/// Set for the child that [`killed_writers_lose_nothing_acknowledged`] starts and kills.
const CHILD: &str = "SEAWAY_STORE_TEST_DIR";

#[test]
fn files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(Store::open(&data, Options::default()).unwrap());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("state.redb")), 0o600);
}

#[test]
fn a_store_in_use_is_named_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path(), Options::default()).unwrap();
    let error = Store::open(dir.path(), Options::default()).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "the store {} is in use by another process; stop that process or choose another data directory",
            dir.path().join("state.redb").display()
        )
    );
    drop(first);
    Store::open(dir.path(), Options::default()).unwrap();
}

#[test]
fn a_damaged_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.redb");
    std::fs::write(&file, "this was never a store").unwrap();
    let error = Store::open(dir.path(), Options::default()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "this was never a store"
    );
}

#[test]
fn killed_writers_lose_nothing_acknowledged() {
    if let Ok(dir) = std::env::var(CHILD) {
        write_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..12_u64 {
        acknowledged = acknowledged.max(run_and_kill(
            dir.path(),
            Duration::from_millis(20 + round * 17),
        ));
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let found = store.revision();
        assert!(
            found >= acknowledged,
            "round {round}: acknowledged {acknowledged}, found {found}"
        );
        // Dense: as many records as revisions, each under the key of its revision.
        let listing = store.list("numbers", "", None).unwrap();
        assert_eq!(listing.records.len() as u64, found);
        assert!(
            listing
                .records
                .iter()
                .zip(1..)
                .all(|(record, number)| record.revision == number)
        );
        // The log is there too: a watcher that saw the last acknowledged write goes on from it.
        let mut watcher = store.watch("numbers", "", acknowledged.min(found)).unwrap();
        let seen: Vec<u64> = watcher
            .take()
            .unwrap()
            .iter()
            .map(|event| event.revision())
            .collect();
        assert!(
            seen.iter()
                .zip(acknowledged + 1..)
                .all(|(revision, expected)| *revision == expected)
        );
        acknowledged = found;
    }
    assert!(
        acknowledged > 50,
        "the children wrote something: {acknowledged}"
    );
}

/// Starts this test binary as a writer, kills it after `life`, and answers the last revision that it reported.
fn run_and_kill(dir: &Path, life: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed_writers_lose_nothing_acknowledged",
            "--nocapture",
        ])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let started = Instant::now();
    let mut last = 0;
    let mut killed = false;
    for line in output.lines() {
        let line = line.unwrap_or_default();
        if let Some(number) = line.strip_prefix("acknowledged ") {
            last = number.parse().unwrap_or(last);
        }
        if !killed && last > 0 && started.elapsed() > life {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    last
}

fn write_for_ever(dir: &Path) -> ! {
    let store = Store::open(dir, Options::default()).unwrap();
    loop {
        // Several at once, so that group commits are killed too.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let written: Result<u64, StoreError> = store.commit_blocking(|txn| {
                        let key = format!("{:020}", txn.next_revision());
                        Ok(txn.put("numbers", &key, vec![0_u8; 512]).revision)
                    });
                    println!("acknowledged {}", written.unwrap());
                });
            }
        });
    }
}
