//! The plugin on an idle node, one pod after the other and fifty at once, beside the reference plugins in turn.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::plugin::{Chain, Cost, Kind, Pod, Verb};
use super::statistics::median;
use super::{Figures, Stage, Unit};
use crate::runtimes::node::ADDRESSES;

/// Pods that come at the same moment, as after a reboot.
const AT_ONCE: usize = 50;

/// Pods that one list gets before it is the turn of the next.
const BLOCK: usize = 10;

/// Runs the scenario.
pub async fn run(stage: &Stage) -> Result<Figures> {
    let mut figures = Figures::new("cni");
    compare(stage, &mut figures, &Kind::ALL).await?;
    Ok(figures)
}

/// Our plugin alone.
pub async fn attach(stage: &Stage, figures: &mut Figures) -> Result<()> {
    compare(stage, figures, &[Kind::Plain]).await
}

/// What was seen of one list.
struct Seen {
    chain: Chain,
    pods: Vec<Pod>,
    add: Vec<Cost>,
    del: Vec<Cost>,
    add_at_once: Vec<f64>,
    del_at_once: Vec<f64>,
}

async fn compare(stage: &Stage, figures: &mut Figures, kinds: &[Kind]) -> Result<()> {
    let blocks = stage.times(10, 2);
    let mut all = Vec::new();
    for &kind in kinds {
        let chain = Chain::new(kind).await?;
        if kind.is_full() {
            does_what_it_is_asked_for(&chain).await?;
        }
        all.push(Seen {
            chain,
            pods: Pod::many((blocks * BLOCK).max(AT_ONCE))?,
            add: Vec::new(),
            del: Vec::new(),
            add_at_once: Vec::new(),
            del_at_once: Vec::new(),
        });
    }
    stage.say(&format!(
        "cni: {} lists of plugins in turn, {} ADD and DEL of each",
        all.len(),
        blocks * BLOCK
    ));
    for verb in [Verb::Add, Verb::Del] {
        for block in 0..blocks {
            for turn in 0..all.len() {
                let first = (block + turn) % all.len();
                if let Some(seen) = all.get_mut(first) {
                    seen.block(verb, block)?;
                }
                // Here a Ctrl-C is heard.
                tokio::task::yield_now().await;
            }
        }
    }
    let rounds = stage.times(5, 2);
    stage.say(&format!("cni: {AT_ONCE} at once, {rounds} times"));
    for _ in 0..rounds {
        for seen in &mut all {
            seen.at_once()?;
            tokio::task::yield_now().await;
        }
    }
    for seen in &all {
        seen.report(figures)?;
        if seen.chain.kind == Kind::Plain {
            starts(stage, seen, figures)?;
        }
    }
    for (name, ours, reference) in [
        ("", Kind::Plain, Kind::Reference),
        ("full_", Kind::Full, Kind::ReferenceFull),
    ] {
        let find = |kind| all.iter().find(|seen: &&Seen| seen.chain.kind == kind);
        if let (Some(ours), Some(reference)) = (find(ours), find(reference)) {
            ratios(figures, name, ours, reference);
        }
    }
    Ok(())
}

impl Seen {
    fn block(&mut self, verb: Verb, block: usize) -> Result<()> {
        let range = block * BLOCK..(block + 1) * BLOCK;
        for pod in self.pods.get(range).unwrap_or_default() {
            let cost = self.chain.call(verb, pod)?;
            match verb {
                Verb::Add => self.add.push(cost),
                _ => self.del.push(cost),
            }
        }
        Ok(())
    }

    fn at_once(&mut self) -> Result<()> {
        let pods = self.pods.get(..AT_ONCE).unwrap_or_default();
        let add = self.chain.call_at_once(Verb::Add, pods)?;
        let del = self.chain.call_at_once(Verb::Del, pods)?;
        self.add_at_once.push(add.as_secs_f64());
        self.del_at_once.push(del.as_secs_f64());
        Ok(())
    }

    fn report(&self, figures: &mut Figures) -> Result<()> {
        let labels = self.chain.kind.labels();
        for (name, costs) in [("add", &self.add), ("del", &self.del)] {
            figures.percentiles(labels, name, Unit::Milliseconds, &times(costs));
            let cpu: f64 = costs.iter().map(|cost| cost.cpu_ms).sum();
            let mean = cpu / costs.len() as f64;
            let metric = format!("cpu_ms_per_{name}");
            figures.named(labels, &metric, Unit::Milliseconds, mean);
        }
        for (name, took) in [("", &self.add_at_once), ("del_", &self.del_at_once)] {
            let name = format!("{name}parallel{AT_ONCE}");
            figures.median(labels, &name, Unit::Seconds, took);
        }
        let pod = self.pods.first().context("no pods")?;
        let mut peaks = Vec::new();
        for _ in 0..5 {
            peaks.push(self.chain.peak_rss(Verb::Add, pod)?);
            self.chain.call(Verb::Del, pod)?;
        }
        figures.median(labels, "rss", Unit::Megabytes, &peaks);
        Ok(())
    }
}

/// Calls that change nothing.
fn starts(stage: &Stage, seen: &Seen, figures: &mut Figures) -> Result<()> {
    let pod = seen.pods.first().context("no pods")?;
    for (name, verb) in [("version", Verb::Version), ("status", Verb::Status)] {
        let costs = (0..stage.times(100, 20))
            .map(|_| seen.chain.call(verb, pod))
            .collect::<Result<Vec<_>>>()?;
        figures.percentiles(&[], name, Unit::Milliseconds, &times(&costs));
    }
    Ok(())
}

fn times(costs: &[Cost]) -> Vec<f64> {
    costs
        .iter()
        .map(|cost| cost.took.as_secs_f64() * 1e3)
        .collect()
}

/// The median of blocks that were taken one after the other, ours by the reference's.
fn ratios(figures: &mut Figures, name: &str, ours: &Seen, reference: &Seen) {
    for (verb, ours, reference) in [
        ("add", &ours.add, &reference.add),
        ("del", &ours.del, &reference.del),
    ] {
        let (ours, reference) = (times(ours), times(reference));
        let pairs = ours.chunks(BLOCK).zip(reference.chunks(BLOCK));
        let ratios: Vec<f64> = pairs
            .filter_map(|(ours, reference)| Some(median(ours)? / median(reference)?))
            .collect();
        let metric = format!("{name}{verb}_ratio_to_reference");
        figures.named_median(&[], &metric, Unit::Ratio, &ratios);
    }
}

/// A list that takes a port and a rate and does nothing about them would be fast.
async fn does_what_it_is_asked_for(chain: &Chain) -> Result<()> {
    let neighbour = chain.node.neighbour().await?;
    let pods = Pod::many(1)?;
    let pod = pods.first().context("no pod")?;
    chain.call(Verb::Add, pod)?;
    let listener = pod
        .space
        .netns()
        .run(|| TcpListener::bind(("0.0.0.0", 80)))??;
    let target = SocketAddr::from((ADDRESSES[0], pod.host_port()));
    let answered = neighbour
        .netns()
        .run(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)))?;
    let kind = chain.kind;
    answered.with_context(|| format!("{kind:?}: no way through the port of the node"))?;
    drop(listener);
    let shaped = seaway_kernel::Command::new("tc")
        .args(["qdisc", "show"])
        .netns(chain.node.netns())
        .output()
        .await?;
    ensure!(
        shaped.text().contains("tbf"),
        "{kind:?}: nothing limits the bandwidth:\n{}",
        shaped.text()
    );
    chain.call(Verb::Del, pod)?;
    Ok(())
}
