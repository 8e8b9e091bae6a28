//! What `/healthz` and `/livez` answer, as a value that the reconcile loop writes and the admin server reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use seaway_model::Family;
use serde::Serialize;

/// How long a change may wait to be programmed before the proxy calls itself unhealthy (kube-proxy: twice its
/// sync period of 30 s).
const STALE_AFTER: Duration = Duration::from_secs(60);

/// Shared between the reconcile loop and the servers.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default, Clone, Copy)]
struct State {
    last_synced: Option<SystemTime>,
    waiting_since: Option<SystemTime>,
    draining: bool,
}

/// The JSON body, with kube-proxy's field names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Now, if healthy: load balancers that looked at it once took it for the time of the last look.
    pub last_updated: Option<String>,
    pub current_time: String,
    /// False while the node drains. `/livez` has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_eligible: Option<bool>,
    pub healthy: bool,
    /// By IP family; all are synced together.
    pub status: BTreeMap<&'static str, FamilyStatus>,
    /// Why not, when not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One entry of [`Verdict::status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyStatus {
    /// When the kernel last had everything.
    pub last_updated: Option<String>,
    pub healthy: bool,
}

impl Health {
    /// A change has arrived that the kernel does not have yet.
    pub fn waiting(&self, now: SystemTime) {
        self.change(|state| _ = state.waiting_since.get_or_insert(now));
    }

    /// The kernel has everything.
    pub fn synced(&self, now: SystemTime) {
        self.change(|state| {
            state.last_synced = Some(now);
            state.waiting_since = None;
        });
    }

    /// Whether the node is about to go away: load balancers should send nothing new.
    pub fn draining(&self, draining: bool) {
        self.change(|state| state.draining = draining);
    }

    /// `/healthz`: healthy from the first complete sync on (kube-proxy says so long before its first sync; an operator
    /// waits for this), as long as no change waits longer than a minute and the node stays (KEP-3836).
    pub fn healthz(&self, now: SystemTime) -> Verdict {
        let state = self.state();
        let reason = state
            .last_synced
            .is_none()
            .then(|| "the first sync is not complete".to_owned())
            .or_else(|| state.stale(now))
            .or_else(|| {
                state
                    .draining
                    .then(|| "the node is about to be deleted".to_owned())
            });
        state.verdict(now, reason, Some(!state.draining))
    }

    /// `/livez`: like `/healthz`, but a node that drains needs no restart of its proxy, nor does one that waits for
    /// its API.
    pub fn livez(&self, now: SystemTime) -> Verdict {
        let state = self.state();
        let reason = state.last_synced.and_then(|_| state.stale(now));
        state.verdict(now, reason, None)
    }

    /// Whether what is programmed can be relied on, whatever becomes of the node.
    pub fn is_serving(&self, now: SystemTime) -> bool {
        let state = self.state();
        state.last_synced.is_some() && state.stale(now).is_none()
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn stale(&self, now: SystemTime) -> Option<String> {
        let waited = now.duration_since(self.waiting_since?).unwrap_or_default();
        (waited > STALE_AFTER).then(|| {
            format!(
                "a change has been waiting for {} s to be programmed",
                waited.as_secs()
            )
        })
    }

    fn verdict(
        &self,
        now: SystemTime,
        reason: Option<String>,
        node_eligible: Option<bool>,
    ) -> Verdict {
        let synced = self.last_synced.map(rfc3339);
        let healthy = reason.is_none();
        let status = FamilyStatus {
            last_updated: synced.clone(),
            healthy: self.last_synced.is_some() && self.stale(now).is_none(),
        };
        Verdict {
            last_updated: if healthy { Some(rfc3339(now)) } else { synced },
            current_time: rfc3339(now),
            node_eligible,
            healthy,
            status: [Family::V4, Family::V6]
                .map(|family| (family_name(family), status.clone()))
                .into(),
            reason,
        }
    }
}

/// A family as kube-proxy names it in its answers and metrics.
pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|t| t.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn healthy_only_between_first_sync_and_stale_change() {
        let health = Health::default();
        assert!(!health.healthz(START).healthy);

        health.synced(START);
        health.waiting(at(10));
        health.waiting(at(60));
        assert!(health.healthz(at(70)).healthy);
        let late = health.healthz(at(71));
        assert_eq!(
            late.reason.as_deref(),
            Some("a change has been waiting for 61 s to be programmed")
        );
        assert!(!health.livez(at(71)).healthy);

        health.synced(at(72));
        assert!(health.healthz(at(500)).healthy);
    }

    #[test]
    fn a_proxy_that_waits_for_its_api_is_alive_but_serves_nothing() {
        let health = Health::default();
        health.waiting(START);
        assert!(health.livez(at(500)).healthy);
        assert!(!health.healthz(at(500)).healthy);
        assert!(!health.is_serving(at(500)));
    }

    #[test]
    fn a_draining_node_is_unhealthy_and_alive() {
        let health = Health::default();
        health.synced(START);
        health.draining(true);
        assert!(!health.healthz(START).healthy);
        assert!(health.livez(START).healthy);
        assert!(health.is_serving(START));
        health.draining(false);
        assert!(health.healthz(START).healthy);
    }

    #[test]
    fn the_bodies_have_kube_proxys_fields() {
        let health = Health::default();
        health.synced(at(1));
        health.draining(true);
        let text = |verdict| serde_json::to_string_pretty(&verdict).unwrap();
        expect![[r#"
            {
              "lastUpdated": "1970-01-01T00:00:01Z",
              "currentTime": "1970-01-01T00:00:05Z",
              "nodeEligible": false,
              "healthy": false,
              "status": {
                "IPv4": {
                  "lastUpdated": "1970-01-01T00:00:01Z",
                  "healthy": true
                },
                "IPv6": {
                  "lastUpdated": "1970-01-01T00:00:01Z",
                  "healthy": true
                }
              },
              "reason": "the node is about to be deleted"
            }"#]]
        .assert_eq(&text(health.healthz(at(5))));
        expect![[r#"
            {
              "lastUpdated": "1970-01-01T00:00:05Z",
              "currentTime": "1970-01-01T00:00:05Z",
              "healthy": true,
              "status": {
                "IPv4": {
                  "lastUpdated": "1970-01-01T00:00:01Z",
                  "healthy": true
                },
                "IPv6": {
                  "lastUpdated": "1970-01-01T00:00:01Z",
                  "healthy": true
                }
              }
            }"#]]
        .assert_eq(&text(health.livez(at(5))));
    }
}
