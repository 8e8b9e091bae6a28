//! What to do after an error of a watch. Pure.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use kube::runtime::watcher::Error;

use crate::failure;

/// What brings the watch back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Ask again from where we were.
    Resume,
    /// Our position is of no use any more: list everything and compare.
    Relist,
    /// The server does not know streaming lists (it must say so, KEP-3157).
    PagedList,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resume => "trying again; what is known stays in force",
            Self::Relist => "listing again; what is known stays in force",
            Self::PagedList => "listing page by page",
        })
    }
}

pub(super) fn remedy(error: &Error, streaming: bool) -> Remedy {
    let status = match error {
        Error::WatchStartFailed(kube::Error::Api(status)) => status,
        Error::WatchError(status) => status,
        _ => return Remedy::Resume,
    };
    // kube relists after 410 inside the stream, but repeats the same version for ever after an HTTP 410; a server
    // that lost its newest revisions (restored, or a new one at the same address) is not foreseen in it at all.
    if status.code == 410 || status.message.contains("Too large resource version") {
        return Remedy::Relist;
    }
    let refused = matches!(status.code, 400 | 405 | 406 | 415 | 422);
    if streaming && refused && matches!(error, Error::WatchStartFailed(_)) {
        return Remedy::PagedList;
    }
    Remedy::Resume
}

/// The error in one sentence, without the words that kube puts around it.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::InitialListFailed(error)
        | Error::WatchStartFailed(error)
        | Error::WatchFailed(error) => failure::describe(error),
        Error::WatchError(status) => failure::answer(status),
        other => failure::causes(other),
    }
}

/// What was said of a failure that goes on.
#[derive(Debug, Default)]
pub(super) struct Said {
    last: Option<(String, Instant)>,
}

/// A failure that stays the same is said again this often.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Said {
    /// Whether `error` has to be said now: it is another one than before, or the last time is a while ago.
    pub(super) fn is_news(&mut self, error: &str, now: Instant) -> bool {
        if let Some((last, when)) = &self.last
            && last == error
            && now.duration_since(*when) < SAY_AGAIN_AFTER
        {
            return false;
        }
        self.last = Some((error.to_owned(), now));
        true
    }

    /// It is over. True if anything was said of it.
    pub(super) fn over(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// Delay between attempts: 0.2 s doubling to 15 s, each with up to half of it cut off at random so that nodes do
/// not come back in step; back to the start after a minute without errors.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
const RESET_AFTER: Duration = Duration::from_secs(60);

impl Backoff {
    /// The delay after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        // A fresh hasher is the standard library's source of random bits.
        self.after(Instant::now(), RandomState::new().build_hasher().finish())
    }

    fn after(&mut self, now: Instant, random: u64) -> Duration {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) > RESET_AFTER)
        {
            self.failures = 0;
        }
        self.last = Some(now);
        let full = FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = full / 2;
        half + half.mul_f64((random % 1024) as f64 / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn status(code: u16, message: &str) -> Status {
        let mut status = Status::failure(message, "reason");
        status.code = code;
        status
    }

    #[test]
    fn delays_double_to_a_limit_and_start_over_after_a_quiet_minute() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut millis = Vec::new();
        for _ in 0..9 {
            let delay = backoff.after(now, u64::MAX);
            millis.push(delay.as_millis());
            now += delay;
        }
        assert_eq!(
            millis,
            [199, 399, 799, 1599, 3198, 6396, 12793, 14992, 14992]
        );
        now += Duration::from_secs(61);
        assert_eq!(backoff.after(now, 0), Duration::from_millis(100));
    }

    #[test]
    fn a_failure_is_said_when_it_changes_and_once_a_minute() {
        let mut said = Said::default();
        let start = Instant::now();
        let mut news = |error, seconds| said.is_news(error, start + Duration::from_secs(seconds));
        assert!(news("refused", 0));
        assert!(!news("refused", 1));
        assert!(news("no route", 2));
        assert!(!news("no route", 61));
        assert!(news("no route", 62));
        assert!(!news("no route", 63));
        assert!(said.over());
        assert!(!said.over());
        assert!(said.is_news("no route", start));
    }

    #[test]
    fn errors_are_said_as_the_server_put_them() {
        let refused = std::io::Error::other("connection refused");
        for (error, want) in [
            (
                Error::WatchStartFailed(kube::Error::Api(Box::new(status(
                    403,
                    "nodes is forbidden",
                )))),
                "nodes is forbidden (403)",
            ),
            (
                Error::InitialListFailed(kube::Error::Api(Box::new(status(401, "Unauthorized")))),
                "Unauthorized (401): the server does not take the credentials of the kubeconfig",
            ),
            (
                Error::WatchFailed(kube::Error::Service(Box::new(refused))),
                "connection refused",
            ),
            (
                Error::WatchError(Box::new(status(500, "oops"))),
                "oops (500)",
            ),
        ] {
            assert_eq!(describe(&error), want);
        }
    }

    #[test]
    fn remedies() {
        let started = |code, text: &str| {
            Error::WatchStartFailed(kube::Error::Api(Box::new(status(code, text))))
        };
        let within = |code, text: &str| Error::WatchError(Box::new(status(code, text)));
        for (error, streaming, want) in [
            (started(410, "too old"), true, Remedy::Relist),
            (started(410, "too old"), false, Remedy::Relist),
            (within(410, "too old"), true, Remedy::Relist),
            (
                started(504, "Too large resource version: 9, current: 2"),
                false,
                Remedy::Relist,
            ),
            (
                started(422, "sendInitialEvents is forbidden"),
                true,
                Remedy::PagedList,
            ),
            (
                started(422, "sendInitialEvents is forbidden"),
                false,
                Remedy::Resume,
            ),
            (started(403, "no"), true, Remedy::Resume),
            (started(503, "busy"), true, Remedy::Resume),
            (within(500, "oops"), true, Remedy::Resume),
            (Error::NoResourceVersion, true, Remedy::Resume),
        ] {
            assert_eq!(remedy(&error, streaming), want, "{error}");
        }
    }
}
