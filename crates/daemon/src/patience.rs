//! Waiting for somebody who may not answer: never for long without a word.

use std::io::{Error, ErrorKind};
use std::time::Duration;

/// What takes longer is told.
pub const SILENCE: Duration = Duration::from_secs(2);

/// Waits until `work` is done. Where that takes longer than [`SILENCE`], stderr says once that `who` is waited for.
///
/// # Errors
///
/// After `limit`, if there is one: names whom, and how long.
pub async fn answer_of<T>(
    who: &str,
    limit: Option<Duration>,
    work: impl Future<Output = T>,
) -> std::io::Result<T> {
    answer_or(who, limit, work, |line| eprintln!("{line}")).await
}

async fn answer_or<T>(
    who: &str,
    limit: Option<Duration>,
    work: impl Future<Output = T>,
    tell: impl FnOnce(String),
) -> std::io::Result<T> {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(SILENCE, &mut work).await {
        return Ok(done);
    }
    let Some(limit) = limit else {
        tell(format!("waiting for {who}"));
        return Ok(work.await);
    };
    let seconds = limit.as_secs();
    tell(format!("waiting for {who}, for up to {seconds} s"));
    let rest = limit.saturating_sub(SILENCE);
    tokio::time::timeout(rest, work).await.map_err(|_| {
        let why = format!("waited {seconds} s for {who} in vain");
        Error::new(ErrorKind::TimedOut, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait(limit: Option<u64>, takes_ms: u64) -> (Option<String>, Option<String>) {
        let mut told = None;
        let work = tokio::time::sleep(Duration::from_millis(takes_ms));
        let limit = limit.map(Duration::from_secs);
        let done = answer_or("the API", limit, work, |line| told = Some(line)).await;
        (told, done.err().map(|error| error.to_string()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_told_and_what_takes_too_long_ends() {
        let told = |text: &str| Some(text.to_owned());
        let waits = || told("waiting for the API, for up to 5 s");
        let ends = told("waited 5 s for the API in vain");
        for (limit, takes, expected) in [
            (Some(5), 1_999, (None, None)),
            (Some(5), 2_001, (waits(), None)),
            (Some(5), 4_999, (waits(), None)),
            (Some(5), 5_001, (waits(), ends)),
            (None, 1_999, (None, None)),
            (None, 100_000, (told("waiting for the API"), None)),
        ] {
            assert_eq!(wait(limit, takes).await, expected, "{limit:?} {takes}");
        }
    }
}
