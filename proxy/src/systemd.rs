//! Readiness and watchdog of systemd. Outside of it there is nobody to tell, which is no error.

use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;

use crate::health::Health;

/// The kernel has everything for the first time.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("in sync")]);
}

/// What is going on, for `systemctl status`.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The daemon is on its way out.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    _ = sd_notify::notify(states);
}

/// Pings the watchdog, if the unit has one, for as long as the daemon is alive in the sense of `/livez`; a daemon that
/// has lost its way is started anew.
pub(crate) async fn watchdog(health: Health) {
    if let Some(limit) = sd_notify::watchdog_enabled() {
        ping(health, interval(limit), || tell(&[NotifyState::Watchdog])).await;
    }
}

async fn ping(health: Health, interval: Duration, mut ping: impl FnMut()) {
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        if health.livez(SystemTime::now()).healthy {
            ping();
        }
    }
}

/// Half of the limit, as systemd advises (sd_watchdog_enabled(3)).
fn interval(limit: Duration) -> Duration {
    (limit / 2).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_while_alive() {
        let health = Health::default();
        health.synced(SystemTime::now());
        let fed = Cell::new(0);
        let feeding = ping(health.clone(), interval(Duration::from_secs(10)), || {
            fed.set(fed.get() + 1);
        });
        let limit = Duration::from_secs(21);
        assert!(tokio::time::timeout(limit, feeding).await.is_err());
        assert_eq!(fed.get(), 5);

        health.waiting(SystemTime::UNIX_EPOCH);
        let feeding = ping(health, interval(Duration::from_secs(10)), || {
            panic!("fed although a change waits for years");
        });
        assert!(tokio::time::timeout(limit, feeding).await.is_err());
    }
}
