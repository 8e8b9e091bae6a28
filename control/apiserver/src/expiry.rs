//! Events do not stay: they go after a time to live.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seaway_store::Store;
use serde_json::Value;

use crate::answer::Failure;
use crate::kinds;
use crate::objects;
use crate::server::Shared;

const INTERVAL: Duration = Duration::from_secs(60);
/// Deletions per commit: others need the committer too.
const BATCH: usize = 200;

/// Removes old Events once a minute until the server stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shared.stopping.cancelled() => return,
        }
        // A time to live beyond the calendar: nothing is ever that old.
        let ttl = SignedDuration::try_from(shared.config.event_ttl).unwrap_or(SignedDuration::MAX);
        let cutoff = Timestamp::now().checked_sub(ttl).unwrap_or(Timestamp::MIN);
        match expire(&shared.store, cutoff).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "old Events removed"),
            Err(failure) => tracing::warn!(%failure, "old Events stay for now"),
        }
    }
}

/// Removes Events last seen before `cutoff`; how many.
async fn expire(store: &Store, cutoff: Timestamp) -> Result<usize, Failure> {
    let Some(kind) = kinds::find("", "v1", "events") else {
        return Ok(0);
    };
    let bucket = objects::bucket(kind);
    let listing = store.list(&bucket, "", None)?;
    let old: Vec<_> = listing
        .records
        .into_iter()
        .filter(|record| last_seen(&record.value) < Some(cutoff))
        .collect();
    for batch in old.chunks(BATCH) {
        let (bucket, batch) = (bucket.clone(), batch.to_vec());
        store
            .commit(move |txn| {
                for record in batch {
                    // Seen again since it was listed: it stays.
                    if txn
                        .get(&bucket, &record.key)
                        .is_some_and(|now| now.revision == record.revision)
                    {
                        objects::remove_expired(txn, &bucket, &record)?;
                    }
                }
                Ok::<(), Failure>(())
            })
            .await?;
    }
    Ok(old.len())
}

fn last_seen(event: &[u8]) -> Option<Timestamp> {
    let event: Value = serde_json::from_slice(event).ok()?;
    let time = |pointer: &str| event.pointer(pointer)?.as_str()?.parse::<Timestamp>().ok();
    let times = [
        "/lastTimestamp",
        "/series/lastObservedTime",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    times.iter().filter_map(|pointer| time(pointer)).max()
}

#[cfg(test)]
mod tests {
    use seaway_store::Options;

    use super::*;

    #[tokio::test]
    async fn only_what_was_not_seen_lately_goes() {
        let store = Store::memory(Options::default()).unwrap();
        let written: Result<(), Failure> = store
            .commit(|txn| {
                let created = r#""metadata":{"creationTimestamp":"2026-01-01T00:00:00Z"}"#;
                txn.put("events", "default/old", format!("{{{created}}}"));
                let again = r#""lastTimestamp":"2026-01-01T01:00:00Z""#;
                txn.put(
                    "events",
                    "default/seen-again",
                    format!("{{{created},{again}}}"),
                );
                let series = r#""series":{"lastObservedTime":"2026-01-01T01:00:00.5Z"}"#;
                txn.put(
                    "events",
                    "default/series",
                    format!("{{{created},{series}}}"),
                );
                txn.put("pods", "default/old", format!("{{{created}}}"));
                Ok(())
            })
            .await;
        written.unwrap();
        let cutoff = "2026-01-01T00:30:00Z".parse().unwrap();
        assert_eq!(expire(&store, cutoff).await.unwrap(), 1);
        let left = store.list("events", "", None).unwrap().records;
        let left: Vec<&str> = left.iter().map(|record| &*record.key).collect();
        assert_eq!(left, ["default/seen-again", "default/series"]);
        assert!(store.get("pods", "default/old").is_some());
        assert_eq!(expire(&store, cutoff).await.unwrap(), 0);
    }
}
