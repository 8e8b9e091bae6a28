//! Pod to pod across two nodes: through our overlay in both modes and through flannel's form, in turn.
//!
//! Nodes of ours have a proxy, and flannel's have none of their own. So its form is there twice: without a proxy, and with the rules that
//! kube-proxy has in iptables mode, as in every cluster. The ratios are to the latter, and `..._bare_ratio` to the former.

pub mod flannel;
pub mod stream;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use seaway_kernel::NetNs;
use seaway_lab::{Lab, Mode, eventually};
use serde_json::Map;

use super::stage::Claim;
use super::statistics::median;
use super::{Figures, Stage, Unit};
use crate::runtimes;
use crate::runtimes::{Namespace, Scratch};
use flannel::Flannel;
use stream::{PORT, Server};

/// Until a packet gets through.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two namespaces, and what was measured from the one to the other.
struct Way {
    label: &'static str,
    from: NetNs,
    to: SocketAddr,
    _server: Server,
    streams: Vec<Streams>,
    /// Microseconds; the median of each round.
    trips: Vec<f64>,
}

/// What streams of one congestion control did.
struct Streams {
    control: &'static str,
    /// 10^6 bytes a second.
    rates: Vec<f64>,
    /// Milliseconds of processor time for 10^9 bytes.
    costs: Vec<f64>,
}

/// Pods of a lab, attached as a runtime attaches them.
struct Attached {
    pods: [Namespace; 2],
    target: IpAddr,
    // Taken away after the pods.
    _lab: Lab,
    _claim: Claim,
}

/// Runs the scenario.
pub async fn run(stage: &Stage) -> Result<Figures> {
    let scratch = Scratch::new("overlay")?;
    stage.say("two nodes of each kind come up");
    let bare = Flannel::new(&[flannel::MASQUERADE]).await?;
    let iptables = Attached::new(Mode::Iptables, "i", &scratch).await?;
    let ebpf = Attached::new(Mode::Ebpf, "e", &scratch).await?;
    let flannel = Flannel::new(&[flannel::KUBE_PROXY, flannel::MASQUERADE]).await?;
    let (nodes, node) = flannel.nodes();
    let mut ways = [
        Way::new("underlay", nodes, node.into())?,
        Way::new("flannel-bare", bare.pods(), bare.target().into())?,
        Way::new("flannel", flannel.pods(), flannel.target().into())?,
        Way::new("iptables", iptables.netns(), iptables.target)?,
        Way::new("ebpf", ebpf.netns(), ebpf.target)?,
    ];
    for way in &ways {
        let first = async || stream::round_trips(&way.from, way.to, 100);
        eventually(way.label, PATIENCE, first).await?;
    }
    let rounds = stage.times(20, 3);
    stage.say(&format!("{rounds} rounds over {} ways", ways.len()));
    for round in 0..rounds {
        let first = round % ways.len();
        for turn in 0..ways.len() {
            let way = (first + turn) % ways.len();
            ways[way].measure(stage)?;
            // Here a Ctrl-C is heard.
            tokio::task::yield_now().await;
        }
    }
    Ok(figures(&ways))
}

impl Way {
    fn new(label: &'static str, ends: [&NetNs; 2], target: IpAddr) -> Result<Self> {
        Ok(Self {
            label,
            from: ends[0].clone(),
            to: SocketAddr::new(target, PORT),
            _server: Server::start(ends[1], PORT, |stream| drop(stream::take(stream)))?,
            streams: stream::controls()?.map(Streams::of).collect(),
            trips: Vec::new(),
        })
    }

    fn measure(&mut self, stage: &Stage) -> Result<()> {
        let time = Duration::from_millis(stage.times(1000, 500) as u64);
        let trips = stream::round_trips(&self.from, self.to, stage.times(2000, 500))?;
        self.trips.extend(median(&trips));
        for streams in &mut self.streams {
            let (rate, cost) = stream::throughput(&self.from, self.to, streams.control, time)?;
            streams.rates.push(rate / 1e6);
            streams.costs.push(cost * 1e12);
        }
        Ok(())
    }

    /// Each row of measurements: the name of its ratios, and one value a round.
    fn rows(&self) -> Vec<(String, &[f64])> {
        let mut rows = vec![("ping".to_owned(), &*self.trips)];
        for streams in &self.streams {
            let by = match streams.control {
                stream::CUBIC => String::new(),
                other => format!("{other}_"),
            };
            rows.push((format!("{by}throughput"), &streams.rates));
            rows.push((format!("{by}cpu"), &streams.costs));
        }
        rows
    }
}

impl Streams {
    fn of(control: &'static str) -> Self {
        Self {
            control,
            rates: Vec::new(),
            costs: Vec::new(),
        }
    }
}

impl Attached {
    async fn new(mode: Mode, letter: &str, scratch: &Scratch) -> Result<Self> {
        let claim = Claim::another(letter)?;
        let lab = claim.up(|config| Ok(config.nodes(2, mode))).await?;
        let pods = [Namespace::new("pod1")?, Namespace::new("pod2")?];
        let mut target = None;
        for (node, pod) in ["n1", "n2"].into_iter().zip(&pods) {
            let cache = scratch.path().join(format!("{mode}-{node}"));
            target = Some(runtimes::attach(&lab, node, cache, pod, Map::new()).await?);
        }
        Ok(Self {
            pods,
            target: target.context("there are no pods")?,
            _lab: lab,
            _claim: claim,
        })
    }

    fn netns(&self) -> [&NetNs; 2] {
        [self.pods[0].netns(), self.pods[1].netns()]
    }
}

fn figures(ways: &[Way; 5]) -> Figures {
    let mut figures = Figures::new("overlay");
    for way in ways {
        for of in &way.streams {
            let labels = [("way", way.label), ("congestion", of.control)];
            figures.named_median(&labels, "throughput_mb_per_s", Unit::PerSecond, &of.rates);
            figures.named_median(&labels, "cpu_ms_per_gb", Unit::Milliseconds, &of.costs);
        }
        let labels = [("way", way.label)];
        figures.median(&labels, "round_trip", Unit::Microseconds, &way.trips);
    }
    let [_, bare, flannel, iptables, ebpf] = ways;
    for way in [iptables, ebpf] {
        for (peer, than) in [(flannel, ""), (bare, "bare_")] {
            for ((name, ours), (_, theirs)) in way.rows().into_iter().zip(peer.rows()) {
                let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(o, t)| o / t).collect();
                let metric = format!("{}_{name}_{than}ratio", way.label);
                figures.named_median(&[], &metric, Unit::Ratio, &ratios);
            }
        }
    }
    figures
}
