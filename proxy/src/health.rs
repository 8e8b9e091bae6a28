//! What `/healthz` and `/livez` answer, as a value that the reconcile loop writes and the admin server reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

/// How long a change may wait to be programmed before the proxy calls itself unhealthy (kube-proxy: twice its
/// sync period of 30 s).
const STALE_AFTER: Duration = Duration::from_secs(60);

/// Shared between the reconcile loop and the admin server.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default, Clone, Copy)]
struct State {
    last_synced: Option<SystemTime>,
    waiting_since: Option<SystemTime>,
}

/// The JSON body, with kube-proxy's field names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub last_updated: Option<String>,
    pub current_time: String,
    pub healthy: bool,
    /// Why not, when not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Health {
    /// A change has arrived that the kernel does not have yet.
    pub fn waiting(&self, now: SystemTime) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting_since.get_or_insert(now);
    }

    /// The kernel has everything.
    pub fn synced(&self, now: SystemTime) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State {
            last_synced: Some(now),
            waiting_since: None,
        };
    }

    /// Healthy from the first complete sync on (kube-proxy says so long before its first sync; an operator waits
    /// for this), as long as no change waits longer than a minute.
    pub fn verdict(&self, now: SystemTime) -> Verdict {
        let state = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match state {
            State {
                last_synced: None, ..
            } => Some("the first sync is not complete".to_owned()),
            State {
                waiting_since: Some(since),
                ..
            } => {
                let waited = now.duration_since(since).unwrap_or_default();
                (waited > STALE_AFTER).then(|| {
                    format!(
                        "a change has been waiting for {} s to be programmed",
                        waited.as_secs()
                    )
                })
            }
            _ => None,
        };
        Verdict {
            last_updated: state.last_synced.map(rfc3339),
            current_time: rfc3339(now),
            healthy: reason.is_none(),
            reason,
        }
    }
}

fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|t| t.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_only_between_first_sync_and_stale_change() {
        let health = Health::default();
        let start = SystemTime::UNIX_EPOCH;
        assert!(!health.verdict(start).healthy);

        health.synced(start);
        health.waiting(start + Duration::from_secs(10));
        health.waiting(start + Duration::from_secs(60));
        assert!(health.verdict(start + Duration::from_secs(70)).healthy);
        let late = health.verdict(start + Duration::from_secs(71));
        assert_eq!(
            late.reason.as_deref(),
            Some("a change has been waiting for 61 s to be programmed")
        );

        health.synced(start + Duration::from_secs(72));
        assert!(health.verdict(start + Duration::from_secs(500)).healthy);
    }
}
