//! The kernel's connection tracking as a place where clients stay bound.

use std::time::Instant;

use seaway_kernel::conntrack::Conntrack;

use super::cleaner::{Place, Ties};
use super::metrics::Metrics;
use super::stale::{is_stale, stale};

/// The table of the network namespace in which its calls are made.
#[derive(Debug)]
pub struct Table {
    metrics: Metrics,
}

impl Table {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl Place for Table {
    fn has_loopback(&self) -> bool {
        false
    }

    /// Goes through the listings, and never holds the frontends for longer than a portion takes.
    fn clean(&self, ties: &Ties<'_>) -> anyhow::Result<()> {
        let mut table = Conntrack::open()?;
        let mut refused = None;
        for filter in &ties.ask(|frontends, _| frontends.listings(ties.due())) {
            let started = Instant::now();
            let (mut seen, mut deleted) = (0, 0);
            let mut found = Vec::new();
            table.list(filter, |flows| {
                seen += flows.len();
                found.extend(ties.ask(|frontends, node| stale(flows, frontends, node)));
            })?;
            for flow in &found {
                // An endpoint may have come back since the listing.
                if !ties.ask(|frontends, node| is_stale(flow, frontends, node)) {
                    continue;
                }
                match table.delete(flow) {
                    Ok(true) => deleted += 1,
                    // Expired by itself.
                    Ok(false) => {}
                    Err(error) => refused = Some(error),
                }
            }
            let took = started.elapsed();
            self.metrics.cleaned(filter.family, deleted, took);
            let ms = took.as_millis();
            tracing::debug!(?filter, seen, deleted, ms, "looked for stale UDP flows");
        }
        Ok(refused.map_or(Ok(()), Err)?)
    }

    fn failed(&self) {
        self.metrics.failures.inc();
    }
}
