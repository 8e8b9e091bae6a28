//! Waiting for conditions; nothing in a lab waits for a time.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::LabError;

/// Between two looks at a condition.
const PERIOD: Duration = Duration::from_millis(50);

/// Looks until `probe` says `Ok`, and answers with that; its last `Err` tells what was seen instead.
pub async fn eventually<T, E: Display>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() >= limit => {
                return Err(LabError::TimedOut {
                    what: what.to_owned(),
                    limit,
                    last: seen.to_string(),
                });
            }
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}
