//! Which figures are drawn, and as which bars.

use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};

use super::super::Unit;
use super::super::overlay::stream::CUBIC;
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

const OVERLAY: &[Metric] = &[
    Metric {
        part: Some(CUBIC),
        more_is_better: true,
        ..less(
            "throughput_mb_per_s",
            "One TCP stream, megabytes",
            Unit::PerSecond,
        )
    },
    Metric {
        part: Some(CUBIC),
        ..less(
            "cpu_ms_per_gb",
            "Processor time of a gigabyte",
            Unit::Milliseconds,
        )
    },
    less("round_trip_us", "There and back", Unit::Microseconds),
];

const CNI: &[Metric] = &[
    less("add_ms_p50", "ADD, median", Unit::Milliseconds),
    Metric {
        part: Some(FULL),
        ..less(
            "add_ms_p50",
            "ADD with a host port and a limit, median",
            Unit::Milliseconds,
        )
    },
    less("parallel50_s", "50 ADD at once", Unit::Seconds),
    Metric {
        part: Some(FULL),
        ..less(
            "parallel50_s",
            "50 ADD at once with a host port and a limit",
            Unit::Seconds,
        )
    },
    less("del_ms_p50", "DEL, median", Unit::Milliseconds),
    Metric {
        part: Some(FULL),
        ..less(
            "del_ms_p50",
            "DEL with a host port and a limit, median",
            Unit::Milliseconds,
        )
    },
];

/// With a host port and a limited bandwidth.
const FULL: &str = "full";

impl Scenario {
    fn title(self) -> &'static str {
        match self {
            Self::Programming => "What it costs to follow changes among many Services",
            Self::Datapath => "What a packet pays for a Service, against the pod's own address",
            Self::Overlay => "From pod to pod on another node",
            Self::Cni => "What a pod pays for its network",
        }
    }

    fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Programming => PROGRAMMING,
            Self::Datapath => DATAPATH,
            Self::Overlay => OVERLAY,
            Self::Cni => CNI,
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
    let scenario = lines.first().context("no figures")?.scenario();
    ensure!(
        lines.iter().all(|line| line.scenario() == scenario),
        "figures of several scenarios: draw each by itself"
    );
    refuse_twice(lines)?;
    let mut contenders: Vec<(bool, String)> = Vec::new();
    for line in lines {
        let Some(name) = line.contender() else {
            continue;
        };
        let contender = (!line.ours(), name);
        if !contenders.contains(&contender) {
            contenders.push(contender);
        }
    }
    contenders.sort_by_key(|(peer, _)| *peer);
    let mut sizes: Vec<Option<Size>> = lines.iter().map(Line::size).collect();
    sizes.sort_unstable();
    sizes.dedup();

    let mut panels = Vec::new();
    for metric in scenario.metrics() {
        for size in &sizes {
            let bars = contenders.iter().filter_map(|(peer, name)| {
                let of =
                    |line: &&Line| line.size() == *size && line.contender().as_ref() == Some(name);
                let own: Vec<&Line> = lines.iter().filter(of).collect();
                Some(Bar {
                    name: name.clone(),
                    ours: !peer,
                    value: metric.value(&own)?,
                })
            });
            let bars: Vec<Bar> = bars.collect();
            if !bars.is_empty() {
                panels.push(metric.panel(bars, size.filter(|_| sizes.len() > 1)));
            }
        }
    }
    ensure!(
        !panels.is_empty(),
        "none of these figures is drawn: docs/bench.md says which are"
    );
    let size = match sizes.as_slice() {
        [size] => size.map(Size::words),
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
        let words = size.map(|size| format!(" with {}", size.words()));
        ensure!(
            seen.insert((&line.metric, name.clone(), size, line.part())),
            "{} of {}{} is there twice: leave out one of the files",
            line.metric,
            name.as_deref().unwrap_or("all"),
            words.unwrap_or_default(),
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
