//! Which figures are drawn, and as which bars.

use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};

use super::super::Unit;
use super::line::{Line, Scenario, Size};

/// Everything that is in the picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) title: &'static str,
    /// How many Services, where that is the same in all panels.
    pub(super) size: Option<String>,
    pub(super) panels: Vec<Panel>,
}

/// Bars that are compared with each other.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    /// What else one must know to read it.
    pub(super) note: String,
    pub(super) unit: Unit,
    pub(super) bars: Vec<Bar>,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) ours: bool,
    pub(super) value: f64,
}

/// A metric that is worth a panel.
struct Metric {
    name: &'static str,
    part: Option<&'static str>,
    /// The part that the value is divided by: both were taken in turn, so a busy machine slows both.
    over: Option<&'static str>,
    title: &'static str,
    unit: Unit,
    more_is_better: bool,
}

const fn less(name: &'static str, title: &'static str, unit: Unit) -> Metric {
    Metric {
        name,
        part: None,
        over: None,
        title,
        unit,
        more_is_better: false,
    }
}

const PROGRAMMING: &[Metric] = &[
    less(
        "cold_start_s",
        "Start, until every Service is served",
        Unit::Seconds,
    ),
    less(
        "cpu_ms_per_change",
        "Processor time of a change",
        Unit::Milliseconds,
    ),
    less(
        "change_to_first_packet_ms_p50",
        "Change to first packet, median",
        Unit::Milliseconds,
    ),
    less(
        "change_to_first_packet_ms_p99",
        "Change to first packet, p99",
        Unit::Milliseconds,
    ),
    less(
        "change_to_first_packet_churn_ms_p50",
        "The same among ten changes a second, median",
        Unit::Milliseconds,
    ),
    less(
        "change_to_first_packet_churn_ms_p99",
        "The same among ten changes a second, p99",
        Unit::Milliseconds,
    ),
    Metric {
        part: Some("end"),
        ..less("rss_mb", "Resident memory at the end", Unit::Megabytes)
    },
    less(
        "idle_cpu_ms_per_s",
        "Processor time of an idle second",
        Unit::Milliseconds,
    ),
];

const DATAPATH: &[Metric] = &[
    Metric {
        part: Some("service"),
        over: Some("direct"),
        ..less(
            "first_packet_us_p50",
            "Time to connect, as a multiple of direct",
            Unit::Ratio,
        )
    },
    Metric {
        more_is_better: true,
        ..less(
            "crr_ratio_to_direct",
            "Connections a second, as a multiple of direct",
            Unit::Ratio,
        )
    },
    Metric {
        more_is_better: true,
        ..less(
            "rr_ratio_to_direct",
            "Requests a second, as a multiple of direct",
            Unit::Ratio,
        )
    },
];

impl Scenario {
    fn title(self) -> &'static str {
        match self {
            Self::Programming => "What it costs to follow changes among many Services",
            Self::Datapath => "What a packet pays for a Service, against the pod's own address",
        }
    }

    fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Programming => PROGRAMMING,
            Self::Datapath => DATAPATH,
        }
    }
}

impl Size {
    fn words(self) -> String {
        let endpoints = match self.endpoints {
            1 => "1 endpoint".to_owned(),
            n => format!("{n} endpoints"),
        };
        format!("{} Services, {endpoints} each", self.services)
    }
}

/// Chooses and arranges. Proxies stand in the same order everywhere: ours first, then as they come.
pub(super) fn picture(lines: &[Line]) -> Result<Picture> {
    let scenario = lines.first().context("no figures")?.scenario;
    ensure!(
        lines.iter().all(|line| line.scenario == scenario),
        "figures of programming and of datapath: draw each by itself"
    );
    refuse_twice(lines)?;
    let mut contenders: Vec<(bool, String)> = Vec::new();
    for line in lines {
        let contender = (!line.ours(), line.contender());
        if !contenders.contains(&contender) {
            contenders.push(contender);
        }
    }
    contenders.sort_by_key(|(peer, _)| *peer);
    let mut sizes: Vec<Size> = lines.iter().map(Line::size).collect();
    sizes.sort_unstable();
    sizes.dedup();

    let mut panels = Vec::new();
    for metric in scenario.metrics() {
        for size in &sizes {
            let bars = contenders.iter().filter_map(|(peer, name)| {
                let of = |line: &&Line| line.size() == *size && line.contender() == *name;
                let own: Vec<&Line> = lines.iter().filter(of).collect();
                Some(Bar {
                    name: name.clone(),
                    ours: !peer,
                    value: metric.value(&own)?,
                })
            });
            let bars: Vec<Bar> = bars.collect();
            if !bars.is_empty() {
                panels.push(metric.panel(bars, (sizes.len() > 1).then_some(*size)));
            }
        }
    }
    ensure!(
        !panels.is_empty(),
        "none of these figures is drawn: docs/bench.md says which are"
    );
    let size = match sizes.as_slice() {
        [size] => Some(size.words()),
        _ => None,
    };
    Ok(Picture {
        title: scenario.title(),
        size,
        panels,
    })
}

/// Of two figures of the same, which one is meant?
fn refuse_twice(lines: &[Line]) -> Result<()> {
    let mut seen = HashSet::new();
    for line in lines {
        let (name, size) = (line.contender(), line.size());
        ensure!(
            seen.insert((&line.metric, name.clone(), size, line.part())),
            "{} of {name} with {} is there twice: leave out one of the files",
            line.metric,
            size.words(),
        );
    }
    Ok(())
}

impl Metric {
    /// From the lines of one proxy at one size.
    fn value(&self, lines: &[&Line]) -> Option<f64> {
        let part = |part: Option<&str>| {
            let mut lines = lines.iter();
            let line = lines.find(|line| line.metric == self.name && line.part() == part)?;
            Some(line.value)
        };
        let value = part(self.part)?;
        match self.over {
            None => Some(value),
            Some(_) => Some(value / part(self.over)?).filter(|ratio| ratio.is_finite()),
        }
    }

    fn panel(&self, bars: Vec<Bar>, size: Option<Size>) -> Panel {
        let better = match self.more_is_better {
            true => "more is better",
            false => "less is better",
        };
        let size = size.map(Size::words);
        let note: Vec<&str> = size.as_deref().into_iter().chain([better]).collect();
        Panel {
            title: self.title,
            note: note.join("; "),
            unit: self.unit,
            bars,
        }
    }
}
