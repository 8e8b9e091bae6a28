//! How long to wait after failures. Pure.

use jiff::{SignedDuration, Timestamp};

/// First delay of a crashing container (kubelet: 10 s).
const FIRST: SignedDuration = SignedDuration::from_secs(10);

/// Longest delay of a crashing container (kubelet: 5 min).
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// A container that ran this long starts over at no delay (kubelet: twice the longest delay).
pub const HEALTHY_RUN: SignedDuration = SignedDuration::from_mins(10);

/// Delay before the restart that follows crash number `streak` (1 is the first): none, 10 s, 20 s, … 5 min.
pub fn crash_delay(streak: u32) -> SignedDuration {
    match streak {
        0 | 1 => SignedDuration::ZERO,
        _ => doubled(FIRST, streak - 2, LONGEST),
    }
}

/// Delay after failure number `attempts` of something that is not the container's fault: 1 s, 2 s, … 30 s.
pub fn retry_delay(attempts: u32) -> SignedDuration {
    doubled(
        SignedDuration::from_secs(1),
        attempts.saturating_sub(1),
        SignedDuration::from_secs(30),
    )
}

fn doubled(first: SignedDuration, times: u32, longest: SignedDuration) -> SignedDuration {
    first
        .checked_mul(1 << times.min(16))
        .unwrap_or(longest)
        .min(longest)
}

/// `at` + `delay`, at most the end of time.
pub fn after(at: Timestamp, delay: SignedDuration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        let crash: Vec<i64> = (0..9).map(|streak| crash_delay(streak).as_secs()).collect();
        assert_eq!(crash, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        let retry: Vec<i64> = (1..8).map(|n| retry_delay(n).as_secs()).collect();
        assert_eq!(retry, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(crash_delay(u32::MAX), LONGEST);
    }
}
