//! Choosing an address. Pure: the ledger says what is taken, this says what comes next.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Range;

/// For how long a freed address is not given out while others are free, so that packets and connection tracking
/// entries of the old pod do not meet the new one.
pub const QUARANTINE: Duration = Duration::from_secs(60);

/// What the ledger knows of an address; one that it does not know is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Taken,
    /// Freed at that time since boot.
    Freed(Duration),
}

impl State {
    /// Whether it was freed too short a time ago to be given out again.
    pub fn is_quarantined(self, now: Duration) -> bool {
        match self {
            Self::Taken => false,
            Self::Freed(at) => now.saturating_sub(at) < QUARANTINE,
        }
    }
}

/// The next address of some ranges: round robin behind `last`, past those in quarantine. When only such are left, the
/// one freed longest ago; `None` when all are taken.
pub fn next(
    ranges: &[Range],
    states: &BTreeMap<IpAddr, State>,
    last: Option<IpAddr>,
    now: Duration,
) -> Option<IpAddr> {
    // Begin in the range that the last one was of.
    let at = last
        .and_then(|last| ranges.iter().position(|range| range.contains(last)))
        .unwrap_or(0);
    let (before, from) = ranges.split_at(at);
    // At most one more than is in the ledger needs to be looked at, however large the ranges are.
    from.iter()
        .chain(before)
        .flat_map(|range| range.behind(last))
        .find(|candidate| match states.get(candidate) {
            None => true,
            Some(State::Taken) => false,
            Some(freed) => !freed.is_quarantined(now),
        })
        .or_else(|| {
            states
                .iter()
                .filter_map(|(address, state)| match state {
                    State::Freed(at) if ranges.iter().any(|r| r.contains(*address)) => {
                        Some((*at, *address))
                    }
                    _ => None,
                })
                .min()
                .map(|(_, address)| address)
        })
}

#[cfg(test)]
mod tests;
