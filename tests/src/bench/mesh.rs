//! The overlay of one node in a cluster of many: how long until it has the way to every other, what one changed Node
//! costs then, and memory. The other nodes are Nodes and nothing else, in manifests or in an API server.

mod node;
mod source;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use tokio::time::sleep;

use super::one_node::usage::resident_mb;
use super::{Figures, Stage, Unit};
use node::{Daemon, Node};
use source::Kind;

/// Flags of the scenario.
#[derive(Debug, Clone, Args)]
pub struct MeshArgs {
    /// Nodes of the cluster besides the one that is measured
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..60_000))]
    pub nodes: u32,
}

/// What figures are of.
type Labels<'a> = &'a [(&'static str, &'a str)];

/// Runs the scenario.
///
/// # Errors
///
/// If the overlay or the API server does not come up, or a change costs more of the kernel than it should.
pub async fn run(stage: &Stage, args: &MeshArgs) -> Result<Figures> {
    let mut figures = Figures::new("mesh");
    let count = args.nodes.to_string();
    let nodes = ("nodes", count.as_str());
    for (kind, labels) in [
        (Kind::Manifests, &[nodes][..]),
        (Kind::Api, &[nodes, ("source", "api")]),
    ] {
        stage.say(&format!("mesh: {count} nodes in {kind:?}"));
        let node = Node::new(kind, args.nodes).await?;
        let rounds = stage.times(5, 2);
        let (mut took, mut again) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            stage.say(&format!("mesh: start {round} of {rounds}"));
            node.clean().await?;
            let (daemon, seconds) = started(&node).await?;
            took.push(seconds);
            if round == rounds {
                let (rss, _) = resident_mb(daemon.id())?;
                figures.value(labels, "rss", Unit::Megabytes, rss);
                changes(stage, &node, kind, &mut figures, labels).await?;
                let (_, peak) = resident_mb(daemon.id())?;
                figures.value(labels, "peak_rss", Unit::Megabytes, peak);
            }
            drop(daemon);
            // One that finds everything in place.
            let (_daemon, seconds) = started(&node).await?;
            again.push(seconds);
        }
        figures.median(labels, "converged", Unit::Seconds, &took);
        figures.median(labels, "restart", Unit::Seconds, &again);
    }
    Ok(figures)
}

/// A daemon, and the seconds until it had the way to every other node.
async fn started(node: &Node) -> Result<(Daemon, f64)> {
    let begun = Instant::now();
    let daemon = node.start()?;
    node.until(|now| now.peers == f64::from(node.count)).await?;
    Ok((daemon, begun.elapsed().as_secs_f64()))
}

/// One Node after the other gets another address, and its first one again.
async fn changes(
    stage: &Stage,
    node: &Node,
    kind: Kind,
    figures: &mut Figures,
    labels: Labels<'_>,
) -> Result<()> {
    let changes = stage.times(50, 5) * 2;
    stage.say(&format!("mesh: {changes} changes, one by one"));
    let mut ear = node.listen()?;
    let (mut work, mut whole, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let first = node.scrape().await?;
    for change in 0..changes as u32 {
        let (number, which) = (change / 2 % node.count, 2 - change % 2);
        // The daemon waits a little after each comparison: it is measured at rest.
        sleep(Duration::from_millis(40 + u64::from(change) * 7 % 30)).await;
        let before = node.scrape().await?;
        let begun = Instant::now();
        let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1000.0;
        // The API server may tell the daemon before it answers.
        let (written, there) = tokio::join!(
            async {
                let written = node.change(number, which).await;
                written.map(|()| milliseconds(begun))
            },
            async {
                let there = ear.way(number, which).await;
                there.map(|()| milliseconds(begun))
            },
        );
        told.push(written?);
        whole.push(there?);
        let after = node.until(|now| now.operations > before.operations).await?;
        // Its route and its neighbour, and nobody else's.
        let operations = after.operations - before.operations;
        ensure!(operations <= 4.0, "one change took {operations} operations");
        let comparisons = after.comparisons - before.comparisons;
        work.push((after.seconds - before.seconds) / comparisons * 1000.0);
    }
    figures.percentiles(labels, "change", Unit::Milliseconds, &work);
    // By the audit every half minute, and otherwise by nothing.
    let listings = node.scrape().await?.listings - first.listings;
    figures.count(labels, "listings_meanwhile", listings);
    if kind == Kind::Api {
        figures.percentiles(labels, "change_to_kernel", Unit::Milliseconds, &whole);
        figures.percentiles(labels, "api_write", Unit::Milliseconds, &told);
    }
    Ok(())
}

/// What the daemon says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scrape {
    peers: f64,
    operations: f64,
    /// Time of all comparisons with their changes, and how many there were.
    seconds: f64,
    comparisons: f64,
    /// Those of them that listed all that is in the kernel.
    listings: f64,
}

impl Scrape {
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some(Self {
            peers: value("seaway_overlay_peers ")?,
            operations: value("seaway_overlay_kernel_operations_total ")?,
            seconds: value("seaway_overlay_sync_seconds_sum ")?,
            comparisons: value("seaway_overlay_sync_seconds_count ")?,
            listings: value("seaway_overlay_listings_total ")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = "# TYPE seaway_overlay_peers gauge\nseaway_overlay_peers 7\n\
                    seaway_overlay_kernel_operations_total 12\nseaway_overlay_sync_seconds_sum 0.5\n\
                    seaway_overlay_sync_seconds_count 4\nseaway_overlay_listings_total 2\n";
        let scrape = Scrape {
            peers: 7.0,
            operations: 12.0,
            seconds: 0.5,
            comparisons: 4.0,
            listings: 2.0,
        };
        assert_eq!(Scrape::parse(text), Some(scrape));
        assert_eq!(Scrape::parse(""), None);
    }
}
