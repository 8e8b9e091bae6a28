//! Who answers whom.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use seaway_lab::Place;
use seaway_lab::traffic::{Summary, Transport};

/// Requests of one round. With three replicas chosen at random, one is left out of 60 once in 10^10 rounds; with
/// five, once in 10^5, and then there is another round.
const ROUND: u64 = 60;

/// How long a change may take from the API to every node's kernel.
pub const SETTLE: Duration = Duration::from_secs(10);

/// Every one of these pods, nobody else, and no request lost, in one round of requests; waits for that.
pub async fn reaches(
    from: &Place,
    transport: Transport,
    target: SocketAddr,
    pods: &BTreeSet<String>,
) -> Result<Summary> {
    let start = Instant::now();
    loop {
        let summary = from.probe(transport, target, ROUND).await?;
        match verdict(&summary, pods) {
            None => return Ok(summary),
            Some(wrong) if start.elapsed() > SETTLE => bail!(
                "from {} to {} {target}: {wrong}",
                from.label(),
                transport.as_str()
            ),
            Some(_) => {}
        }
    }
}

/// What is wrong with a round, if anything.
fn verdict(summary: &Summary, pods: &BTreeSet<String>) -> Option<String> {
    if summary.failed > 0 {
        return Some(format!(
            "{} of {} requests failed: {:?}",
            summary.failed, summary.sent, summary.errors
        ));
    }
    let answered: BTreeSet<String> = summary.pods.keys().cloned().collect();
    if answered != *pods {
        return Some(format!("answered: {answered:?}; expected: {pods:?}"));
    }
    None
}

/// Waits until every request of a round is refused at once.
pub async fn refused(from: &Place, target: SocketAddr) -> Result<()> {
    all_fail(from, Transport::Tcp, target, "connection refused").await
}

/// Waits until every request of a short round fails for this one reason.
pub async fn all_fail(
    from: &Place,
    transport: Transport,
    target: SocketAddr,
    reason: &str,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let summary = from.probe(transport, target, 10).await?;
        if summary.errors.get(reason) == Some(&summary.sent) {
            return Ok(());
        }
        if start.elapsed() > SETTLE {
            bail!(
                "from {} to {target}: expected only {reason:?}, got {summary:?}",
                from.label()
            );
        }
    }
}

/// A load that lost nothing: every request was answered.
pub fn nothing_lost(
    what: &str,
    outcome: &(Vec<seaway_lab::traffic::Attempt>, Summary),
) -> Result<()> {
    let (attempts, summary) = outcome;
    if summary.failed == 0 && summary.sent > 0 {
        return Ok(());
    }
    let failures = attempts.iter().filter(|attempt| attempt.error.is_some());
    let failures: Vec<String> = failures
        .take(10)
        .map(|a| {
            format!(
                "#{} at {}: {}",
                a.n,
                a.at,
                a.error.clone().unwrap_or_default()
            )
        })
        .collect();
    bail!(
        "{what}: {} of {} requests lost: {}",
        summary.failed,
        summary.sent,
        failures.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_replica_and_a_strange_one_are_both_wrong() {
        let pods = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let mut summary = Summary {
            sent: 2,
            answered: 2,
            ..Summary::default()
        };
        summary.pods.insert("a".into(), 2);
        assert!(verdict(&summary, &pods).is_some());
        summary.pods.insert("b".into(), 1);
        assert_eq!(verdict(&summary, &pods), None);
        summary.pods.insert("c".into(), 1);
        assert!(verdict(&summary, &pods).is_some());
    }
}
