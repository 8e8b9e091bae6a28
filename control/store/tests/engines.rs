//! One suite for both engines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use seaway_store::{Event, EventKind, Options, ReadError, Revision, Store, StoreError, WatchError};

type Outcome<T = ()> = Result<T, StoreError>;

/// Runs the test once per engine.
fn each(test: impl Fn(&dyn Fn(Options) -> Store)) {
    test(&|options| Store::memory(options).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    test(&|options| {
        count.set(count.get() + 1);
        Store::open(&dir.path().join(count.get().to_string()), options).unwrap()
    });
}

fn put(store: &Store, bucket: &'static str, key: &str, value: &str) -> Revision {
    let (key, value) = (key.to_owned(), value.to_owned());
    let written: Outcome<Revision> =
        store.commit_blocking(move |txn| Ok(txn.put(bucket, &key, value).revision));
    written.unwrap()
}

fn delete(store: &Store, bucket: &'static str, key: &str) -> Option<Revision> {
    let key = key.to_owned();
    let deleted: Outcome<Option<Revision>> = store.commit_blocking(move |txn| {
        Ok(txn
            .delete(bucket, &key, "gone")
            .map(|record| record.revision))
    });
    deleted.unwrap()
}

fn listed(
    store: &Store,
    bucket: &str,
    prefix: &str,
    at: Option<Revision>,
) -> Vec<(String, String)> {
    let listing = store.list(bucket, prefix, at).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    listing
        .records
        .iter()
        .map(|record| (record.key.to_string(), text(&record.value)))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn revisions_are_dense_over_all_buckets() {
    each(|open| {
        let store = open(Options::default());
        assert_eq!(put(&store, "a", "x", "1"), 1);
        assert_eq!(put(&store, "b", "x", "1"), 2);
        assert_eq!(put(&store, "a", "x", "2"), 3);
        assert_eq!(delete(&store, "a", "nothing"), None);
        assert_eq!(delete(&store, "a", "x"), Some(4));
        assert_eq!(store.revision(), 4);
        assert!(store.get("a", "x").is_none());
        assert_eq!(store.get("b", "x").unwrap().revision, 2);
    });
}

#[test]
fn a_refused_transaction_leaves_nothing() {
    each(|open| {
        let store = open(Options::default());
        let refused: Outcome = store.commit_blocking(|txn| {
            txn.put("a", "x", "1");
            txn.put("a", "y", "1");
            Err(StoreError::Closed)
        });
        assert!(refused.is_err());
        let panicked: Outcome = store.commit_blocking(|txn| {
            txn.put("a", "x", "1");
            panic!("on purpose");
        });
        assert!(matches!(panicked, Err(StoreError::Panicked)));
        assert_eq!(store.revision(), 0);
        assert_eq!(put(&store, "a", "x", "2"), 1);
        assert_eq!(listed(&store, "a", "", None), pairs(&[("x", "2")]));
    });
}

#[test]
fn a_transaction_sees_its_own_writes_and_the_batch() {
    each(|open| {
        let store = open(Options::default());
        put(&store, "a", "x", "1");
        let seen: Outcome<Vec<String>> = store.commit_blocking(|txn| {
            txn.put("a", "y", "2");
            txn.delete("a", "x", "gone");
            txn.put("b", "z", "3");
            assert!(txn.get("a", "x").is_none());
            Ok(txn
                .range("a", "")
                .iter()
                .map(|record| record.key.to_string())
                .collect())
        });
        assert_eq!(seen.unwrap(), ["y"]);
    });
}

#[test]
fn one_of_many_wins_a_name() {
    each(|open| {
        let store = open(Options::default());
        let winners: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let store = store.clone();
                    scope.spawn(move || {
                        let won: Outcome<bool> = store.commit_blocking(|txn| {
                            let free = txn.get("a", "name").is_none();
                            if free {
                                txn.put("a", "name", "mine");
                            }
                            Ok(free)
                        });
                        usize::from(won.unwrap())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!((winners, store.revision()), (1, 1));
    });
}

#[test]
fn the_past_can_be_listed_until_it_is_compacted() {
    each(|open| {
        let store = open(Options::default());
        put(&store, "a", "ns/1", "a");
        put(&store, "a", "ns/2", "b");
        put(&store, "a", "ns/1", "c");
        delete(&store, "a", "ns/2");
        put(&store, "a", "other/3", "d");
        assert_eq!(
            listed(&store, "a", "ns/", Some(2)),
            pairs(&[("ns/1", "a"), ("ns/2", "b")])
        );
        assert_eq!(listed(&store, "a", "", Some(4)), pairs(&[("ns/1", "c")]));
        assert_eq!(
            listed(&store, "a", "", None),
            pairs(&[("ns/1", "c"), ("other/3", "d")])
        );
        let future = store.list("a", "", Some(9)).unwrap_err();
        assert_eq!(
            future,
            ReadError::Future {
                asked: 9,
                current: 5
            }
        );
        block_on(store.compact(3)).unwrap();
        assert_eq!(
            store.list("a", "", Some(2)).unwrap_err(),
            ReadError::Compacted {
                asked: 2,
                oldest: 3
            }
        );
        assert_eq!(
            listed(&store, "a", "", Some(3)),
            pairs(&[("ns/1", "c"), ("ns/2", "b")])
        );
    });
}

#[test]
fn a_watch_from_before_the_compaction_is_refused_with_its_reason() {
    each(|open| {
        let store = open(Options::default());
        for value in ["1", "2", "3"] {
            put(&store, "a", "x", value);
        }
        let mut early = store.watch("a", "", 0).unwrap();
        block_on(store.compact(2)).unwrap();
        let refused = store.watch("a", "", 1).err().unwrap();
        assert_eq!(
            refused,
            WatchError::Compacted {
                asked: 1,
                oldest: 2
            }
        );
        assert_eq!(
            block_on(early.next()).unwrap_err(),
            WatchError::Compacted {
                asked: 0,
                oldest: 2
            }
        );
        // A bucket without events is compacted with the rest, and one that comes later too.
        assert!(store.watch("b", "", 1).is_err());
        assert_eq!(revisions(&mut store.watch("a", "", 2).unwrap()), [3]);
    });
}

#[test]
fn age_decides_compaction() {
    let options = Options {
        retention: Duration::from_millis(200),
        compact_interval: Duration::from_millis(50),
        ..Options::default()
    };
    each(|open| {
        let store = open(options.clone());
        put(&store, "a", "x", "1");
        put(&store, "b", "x", "1");
        assert_eq!(store.compacted(), 0);
        let started = std::time::Instant::now();
        while store.compacted() < 2 && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(store.compacted(), 2);
        assert_eq!(listed(&store, "a", "", None), pairs(&[("x", "1")]));
    });
}

#[test]
fn a_full_ring_and_a_slow_watcher() {
    each(|open| {
        let store = open(Options {
            ring_limit: 5,
            watch_lag_limit: 3,
            ..Options::default()
        });
        let mut watcher = store.watch("a", "", 0).unwrap();
        put(&store, "a", "x", "0");
        assert_eq!(revisions(&mut watcher), [1]);
        for value in ["1", "2", "3", "4"] {
            put(&store, "a", "x", value);
        }
        assert_eq!(
            block_on(watcher.next()).unwrap_err(),
            WatchError::TooSlow { behind: 4 }
        );
        // It may come back where it was: history still has it.
        assert_eq!(
            revisions(&mut store.watch("a", "", 1).unwrap()),
            [2, 3, 4, 5]
        );
        for value in ["5", "6", "7"] {
            put(&store, "a", "x", value);
        }
        assert!(matches!(
            store.watch("a", "", 1),
            Err(WatchError::Compacted { .. })
        ));
        assert_eq!(
            store.compacted(),
            0,
            "one busy bucket takes nothing from the others"
        );
    });
}

#[test]
fn a_watch_may_start_in_the_future_and_ends_with_the_store() {
    each(|open| {
        let store = open(Options::default());
        let mut watcher = store.watch("a", "ns/", 2).unwrap();
        put(&store, "a", "ns/1", "too early");
        put(&store, "a", "ns/2", "too early");
        put(&store, "a", "other/1", "elsewhere");
        put(&store, "a", "ns/3", "seen");
        assert_eq!(revisions(&mut watcher), [4]);
        assert_eq!(watcher.position(), 4);
        put(&store, "b", "x", "another bucket");
        assert!(watcher.take().unwrap().is_empty());
        assert_eq!(watcher.position(), 5, "idle, it is at the present");
        drop(store);
        assert_eq!(block_on(watcher.next()).unwrap_err(), WatchError::Closed);
    });
}

fn revisions(watcher: &mut seaway_store::Watcher) -> Vec<Revision> {
    block_on(watcher.next())
        .unwrap()
        .iter()
        .map(|event| event.revision())
        .collect()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// What a client has that applies events, checking each against what it knew.
fn replay(state: &mut BTreeMap<String, Revision>, events: &[Arc<Event>]) {
    for event in events {
        let key = event.record.key.to_string();
        let before = match event.kind {
            EventKind::Put => state.insert(key, event.revision()),
            EventKind::Delete => state.remove(&key),
        };
        assert_eq!(
            before,
            event.previous.as_ref().map(|previous| previous.revision)
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8, u8),
    Poll,
    Compact(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..2_u8, 0..5_u8).prop_map(|(bucket, key)| Step::Put(bucket, key)),
        3 => (0..2_u8, 0..5_u8).prop_map(|(bucket, key)| Step::Delete(bucket, key)),
        2 => Just(Step::Poll),
        1 => (0..4_u8).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

const BUCKETS: [&str; 2] = ["a", "b"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens, with watchers polled and the store reopened at any time: each watcher gets every event of its
    /// bucket once and in order, and what it replayed is what the store lists; so is every past state it passed.
    #[test]
    fn watching_is_replaying(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), Options::default()).unwrap();
        let mut watchers: Vec<_> = BUCKETS.iter().map(|bucket| store.watch(bucket, "", 0).unwrap()).collect();
        let mut states: [BTreeMap<String, Revision>; 2] = Default::default();
        let mut expected = 0;
        for step in steps {
            match step {
                Step::Put(bucket, key) => {
                    expected += 1;
                    let revision = put(&store, BUCKETS[usize::from(bucket)], &key.to_string(), "value");
                    prop_assert_eq!(revision, expected);
                }
                Step::Delete(bucket, key) => {
                    if let Some(revision) = delete(&store, BUCKETS[usize::from(bucket)], &key.to_string()) {
                        expected += 1;
                        prop_assert_eq!(revision, expected);
                    }
                }
                Step::Poll => poll(&store, &mut watchers, &mut states),
                Step::Compact(back) => {
                    // Clients that are up to date never notice.
                    poll(&store, &mut watchers, &mut states);
                    block_on(store.compact(expected.saturating_sub(u64::from(back)))).unwrap();
                }
                Step::Reopen => {
                    let positions: Vec<Revision> = watchers.iter().map(|watcher| watcher.position()).collect();
                    watchers.clear();
                    drop(store);
                    store = Store::open(dir.path(), Options::default()).unwrap();
                    prop_assert_eq!(store.revision(), expected);
                    let resume = |(bucket, from): (&&str, &Revision)| store.watch(bucket, "", *from).unwrap();
                    watchers = BUCKETS.iter().zip(&positions).map(resume).collect();
                }
            }
        }
        poll(&store, &mut watchers, &mut states);
    }
}

fn poll(
    store: &Store,
    watchers: &mut [seaway_store::Watcher],
    states: &mut [BTreeMap<String, Revision>; 2],
) {
    for (index, watcher) in watchers.iter_mut().enumerate() {
        loop {
            let events = watcher.take().unwrap();
            if events.is_empty() {
                break;
            }
            for event in &events {
                replay(&mut states[index], std::slice::from_ref(event));
                assert_eq!(
                    state_at(store, index, Some(event.revision())),
                    states[index]
                );
            }
        }
        assert_eq!(watcher.position(), store.revision());
        assert_eq!(state_at(store, index, None), states[index]);
    }
}

fn state_at(store: &Store, bucket: usize, at: Option<Revision>) -> BTreeMap<String, Revision> {
    let listing = store.list(BUCKETS[bucket], "", at).unwrap();
    listing
        .records
        .iter()
        .map(|record| (record.key.to_string(), record.revision))
        .collect()
}
