//! Limits that decide how much history is kept.

use std::time::Duration;

/// How much history the store keeps and how far a watcher may fall behind.
#[derive(Debug, Clone)]
pub struct Options {
    /// Events younger than this survive compaction.
    pub retention: Duration,
    /// Time between two compactions.
    pub compact_interval: Duration,
    /// Events kept per bucket whatever their age; more than this and the oldest go early.
    pub ring_limit: usize,
    /// A watcher that had caught up and then falls this many events behind is closed.
    pub watch_lag_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(10 * 60),
            compact_interval: Duration::from_secs(5 * 60),
            ring_limit: 100_000,
            watch_lag_limit: 20_000,
        }
    }
}
