//! What was measured, as values; a table for people, one JSON object a figure for programs.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::statistics::{median, percentile};

/// What a value counts. The unit is part of a metric's name, as in `add_ms_p50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    /// 10^6 bytes.
    Megabytes,
    Bytes,
    PerSecond,
    /// Of two values of one kind.
    Ratio,
    /// Things, which the metric names.
    Count,
}

impl Unit {
    /// As it stands in the name of a metric.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
            Self::Megabytes => "mb",
            Self::Bytes => "bytes",
            Self::PerSecond => "per_s",
            Self::Ratio => "ratio",
            Self::Count => "count",
        }
    }

    /// As people write it.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Nanoseconds => "ns",
            Self::Megabytes => "MB",
            Self::Bytes => "bytes",
            Self::PerSecond => "/s",
            Self::Ratio | Self::Count => "",
        }
    }
}

/// The samples behind a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub least: f64,
    pub most: f64,
    pub samples: usize,
}

impl Spread {
    fn of(samples: &[f64]) -> Option<Self> {
        Some(Self {
            least: percentile(samples, 0.0)?,
            most: percentile(samples, 100.0)?,
            samples: samples.len(),
        })
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub scenario: &'static str,
    /// What tells it from the others of the same metric, such as the mode.
    pub labels: Vec<(&'static str, String)>,
    pub metric: String,
    pub value: f64,
    pub unit: Unit,
    /// None where there is just one sample.
    pub spread: Option<Spread>,
}

impl Figure {
    /// The object for programs: scenario, labels, metric, value, in this order.
    pub fn json(&self) -> String {
        // Built by hand, because a map would sort its keys.
        let pair = |key: &str, value: Value| format!("{}:{value}", Value::from(key));
        let mut pairs = vec![pair("scenario", json!(self.scenario))];
        pairs.extend(self.labels.iter().map(|(key, v)| pair(key, label(v))));
        pairs.push(pair("metric", json!(self.metric)));
        pairs.push(pair("value", json!(rounded(self.value))));
        format!("{{{}}}", pairs.join(","))
    }
}

/// The figures of a scenario, in the order in which they are shown.
#[derive(Debug)]
pub struct Figures {
    scenario: &'static str,
    list: Vec<Figure>,
}

impl Figures {
    /// None yet.
    pub fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            list: Vec::new(),
        }
    }

    /// All of them.
    pub fn list(&self) -> &[Figure] {
        &self.list
    }

    /// `NAME_UNIT`: one value.
    pub fn value(&mut self, labels: &[(&'static str, &str)], name: &str, unit: Unit, value: f64) {
        let metric = format!("{name}_{}", unit.suffix());
        self.push(labels, metric, unit, Some(value), None);
    }

    /// One value under a name that does not end in its unit, as in `cpu_ms_per_add`.
    pub fn named(&mut self, labels: &[(&'static str, &str)], metric: &str, unit: Unit, value: f64) {
        self.push(labels, metric.to_owned(), unit, Some(value), None);
    }

    /// A number of things, under the name of what they are.
    pub fn count(&mut self, labels: &[(&'static str, &str)], metric: &str, value: f64) {
        self.push(labels, metric.to_owned(), Unit::Count, Some(value), None);
    }

    /// The median under such a name; nothing without samples.
    pub fn named_median(
        &mut self,
        labels: &[(&'static str, &str)],
        metric: &str,
        unit: Unit,
        samples: &[f64],
    ) {
        let spread = Spread::of(samples);
        self.push(labels, metric.to_owned(), unit, median(samples), spread);
    }

    /// `NAME_UNIT`: the median; nothing without samples.
    pub fn median(
        &mut self,
        labels: &[(&'static str, &str)],
        name: &str,
        unit: Unit,
        samples: &[f64],
    ) {
        let metric = format!("{name}_{}", unit.suffix());
        self.push(labels, metric, unit, median(samples), Spread::of(samples));
    }

    /// `NAME_UNIT_p50` and `NAME_UNIT_p99`; nothing without samples.
    pub fn percentiles(
        &mut self,
        labels: &[(&'static str, &str)],
        name: &str,
        unit: Unit,
        samples: &[f64],
    ) {
        let spread = Spread::of(samples);
        for percent in [50, 99] {
            let metric = format!("{name}_{}_p{percent}", unit.suffix());
            let value = percentile(samples, f64::from(percent));
            self.push(labels, metric, unit, value, spread);
        }
    }

    fn push(
        &mut self,
        labels: &[(&'static str, &str)],
        metric: String,
        unit: Unit,
        value: Option<f64>,
        spread: Option<Spread>,
    ) {
        self.list.extend(value.map(|value| Figure {
            scenario: self.scenario,
            labels: labels.iter().map(|(k, v)| (*k, (*v).into())).collect(),
            metric,
            value,
            unit,
            spread,
        }));
    }

    /// For people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["metric", "of", "value", "", "least to most", "samples"]);
        for figure in &self.list {
            let labels: Vec<String> = figure
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let (range, samples) = match figure.spread {
                Some(s) => (
                    format!("{} to {}", shown(s.least), shown(s.most)),
                    s.samples.to_string(),
                ),
                None => (String::new(), String::new()),
            };
            table.add_row([
                figure.metric.clone(),
                labels.join(" "),
                shown(figure.value),
                figure.unit.symbol().to_owned(),
                range,
                samples,
            ]);
        }
        for column in [2, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// Three significant digits are all that a measurement here is worth; the rest would only suggest more.
pub(super) fn shown(value: f64) -> String {
    // Written this way, 9.999 has become 1.00e1 before its decimals are counted.
    let scientific = format!("{value:.2e}");
    let exponent = scientific.split_once('e').map(|(_, exponent)| exponent);
    let exponent: i32 = exponent.and_then(|e| e.parse().ok()).unwrap_or_default();
    let decimals = (2 - exponent).clamp(0, 3) as usize;
    let rounded: f64 = scientific.parse().unwrap_or(value);
    format!("{rounded:.decimals$}")
}

/// A count, as in `services=10000`, is a number for programs, too.
fn label(value: &str) -> Value {
    value
        .parse::<u64>()
        .map_or_else(|_| json!(value), |n| json!(n))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_scenario_labels_metric_value() {
        let mut figures = Figures::new("walkthrough");
        let samples = [42.0, 41.0, 43.000_04];
        figures.percentiles(
            &[("mode", "ebpf")],
            "scale_to_first_packet",
            Unit::Milliseconds,
            &samples,
        );
        let lines: Vec<String> = figures.list().iter().map(Figure::json).collect();
        assert_eq!(
            lines,
            [
                r#"{"scenario":"walkthrough","mode":"ebpf","metric":"scale_to_first_packet_ms_p50","value":42.0}"#,
                r#"{"scenario":"walkthrough","mode":"ebpf","metric":"scale_to_first_packet_ms_p99","value":43.0}"#,
            ]
        );
    }

    #[test]
    fn a_label_that_counts_is_a_number() {
        let mut figures = Figures::new("programming");
        let labels = [("mode", "iptables"), ("services", "10000")];
        figures.named(&labels, "cpu_ms_per_change", Unit::Milliseconds, 4.5);
        let line = figures.list().first().map(Figure::json);
        assert_eq!(
            line.as_deref(),
            Some(
                r#"{"scenario":"programming","mode":"iptables","services":10000,"metric":"cpu_ms_per_change","value":4.5}"#
            )
        );
    }

    #[test]
    fn without_samples_there_is_no_figure() {
        let mut figures = Figures::new("cni");
        figures.percentiles(&[], "add", Unit::Milliseconds, &[]);
        figures.median(&[], "up", Unit::Seconds, &[]);
        assert!(figures.list().is_empty());
    }

    #[test]
    fn three_digits_are_shown() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.0123, "0.012"),
            (0.978, "0.978"),
            (1.0, "1.00"),
            (9.999, "10.0"),
            (27.735, "27.7"),
            (99.96, "100"),
            (180.007, "180"),
            (10_648.333, "10600"),
            (-4.5, "-4.50"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn the_table_has_the_spread() {
        let mut figures = Figures::new("walkthrough");
        figures.median(
            &[("nodes", "3")],
            "lab_up",
            Unit::Seconds,
            &[1.5, 1.25, 12.345],
        );
        figures.value(&[], "binary", Unit::Megabytes, 123.4);
        let table = figures.table().to_string();
        for part in ["lab_up_s", "nodes=3", "1.50", "1.25 to 12.3", "123"] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
    }
}
