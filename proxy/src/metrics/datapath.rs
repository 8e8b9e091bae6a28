//! What the programs of eBPF mode have counted, read from their maps when somebody asks.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use seaway_ebpf_abi::counters::{TALLIES, TALLY_OPENED, Tally};
use seaway_model::ObjectKey;

use crate::ebpf::{Observed, Snapshot};

/// Says nothing while this process runs no eBPF data plane.
#[derive(Debug)]
pub struct Datapath(pub Observed);

impl Collector for Datapath {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        match self.0.snapshot() {
            Ok(Some(snapshot)) => encode(&mut encoder, &snapshot),
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "no metrics of the eBPF programs");
                Ok(())
            }
        }
    }
}

/// A metric with its labels.
struct Describe {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
}

const PREFIX: &str = "seaway_proxy_";

/// Encodes one metric for each set of labels.
fn series<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    describe: &Describe,
    values: impl IntoIterator<Item = (L, u64)>,
) -> Result<(), fmt::Error> {
    let name = format!("{PREFIX}{}", describe.name);
    let mut metric =
        encoder.encode_descriptor(&name, describe.help, describe.unit.as_ref(), describe.kind)?;
    for (labels, value) in values {
        let encoder = metric.encode_family(&labels)?;
        match describe.kind {
            MetricType::Gauge => ConstGauge::new(value as i64).encode(encoder)?,
            _ => ConstCounter::new(value).encode(encoder)?,
        }
    }
    Ok(())
}

/// `internal` or `external`: where the client is.
fn direction(tally: Tally) -> &'static str {
    if tally.outside {
        "external"
    } else {
        "internal"
    }
}

/// Namespace and name; both empty for the Services that are counted together.
fn names(service: Option<&ObjectKey>) -> (&str, &str) {
    service.map_or(("", ""), |key| (key.namespace(), key.name()))
}

fn encode(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let counter = |name, help| Describe {
        name,
        help,
        unit: None,
        kind: MetricType::Counter,
    };
    let gauge = |name, help, unit| Describe {
        name,
        help,
        unit,
        kind: MetricType::Gauge,
    };
    let flows = snapshot
        .services
        .iter()
        .filter_map(|((service, tally), count)| {
            let (namespace, service) = names(service.as_ref());
            let labels = [
                ("namespace", namespace),
                ("service", service),
                ("direction", direction(*tally)),
            ];
            (tally.what == TALLY_OPENED).then_some((labels, *count))
        });
    series(
        encoder,
        &counter(
            "service_flows",
            "Flows that began at a Service: connections, and UDP flows",
        ),
        flows,
    )?;
    let drops = snapshot
        .services
        .iter()
        .filter_map(|((service, tally), count)| {
            let (namespace, service) = names(service.as_ref());
            let (_, reason) = TALLIES
                .iter()
                .find(|(what, _)| *what == tally.what && tally.what != TALLY_OPENED)?;
            let labels = [
                ("namespace", namespace),
                ("service", service),
                ("direction", direction(*tally)),
                ("reason", *reason),
            ];
            Some((labels, *count))
        });
    series(
        encoder,
        &counter(
            "service_drops",
            "Connections refused and packets dropped at a Service, by the reason",
        ),
        drops,
    )?;
    let verdicts = snapshot.verdicts.iter();
    series(
        encoder,
        &counter(
            "verdicts",
            "What the programs did to packets and sockets, all Services together",
        ),
        verdicts.map(|(verdict, count)| ([("verdict", verdict.label())], *count)),
    )?;
    series(
        encoder,
        &gauge(
            "links_left",
            "Links that programs belong to but whose packets have a header that they do not know: who comes by them is not served",
            None,
        ),
        [([("reason", "unknown_header")], snapshot.links_left as u64)],
    )?;
    let maps = || snapshot.maps.iter();
    series(
        encoder,
        &gauge("map_entries", "Entries of a map", None),
        maps().map(|map| ([("map", map.name)], map.entries)),
    )?;
    series(
        encoder,
        &gauge("map_max_entries", "Entries that a map has room for", None),
        maps().map(|map| ([("map", map.name)], map.max_entries)),
    )?;
    series(
        encoder,
        &gauge(
            "map_memory",
            "Memory of a map in the kernel",
            Some(Unit::Bytes),
        ),
        maps().map(|map| ([("map", map.name)], map.memory_bytes)),
    )?;
    series(
        encoder,
        &counter(
            "map_evictions",
            "Entries that a map pushed out to make room, at least",
        ),
        maps().filter_map(|map| Some(([("map", map.name)], map.evictions()?))),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use seaway_ebpf_abi::Verdict;

    use super::*;
    use crate::ebpf::{Balance, MapUse};

    /// What [`Datapath`] does with a fixed snapshot.
    #[derive(Debug)]
    struct Fixed(Snapshot);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            encode(&mut encoder, &self.0)
        }
    }

    #[test]
    fn labels_say_which_service_which_way_and_why() {
        let web = Some(ObjectKey::new("default", "web"));
        let tally = |what, outside| Tally { what, outside };
        let why = |verdict: Verdict| verdict.tally().unwrap();
        let snapshot = Snapshot {
            verdicts: vec![(Verdict::Forward, 5), (Verdict::Rejected, 1)],
            services: BTreeMap::from([
                ((web.clone(), tally(TALLY_OPENED, false)), 7),
                ((web.clone(), tally(TALLY_OPENED, true)), 2),
                ((web.clone(), tally(why(Verdict::SocketRefused), false)), 1),
                ((web, tally(why(Verdict::DroppedSource), true)), 3),
                ((None, tally(TALLY_OPENED, false)), 9),
            ]),
            maps: vec![
                MapUse {
                    name: "BACKENDS",
                    entries: 3,
                    max_entries: 4096,
                    memory_bytes: 512,
                    balance: None,
                },
                MapUse {
                    name: "FLOWS",
                    entries: 4,
                    max_entries: 131_072,
                    memory_bytes: 4096,
                    balance: Some(Balance::Evicted(6)),
                },
                MapUse {
                    name: "AFFINITY",
                    entries: 1,
                    max_entries: 65_536,
                    memory_bytes: 1024,
                    balance: Some(Balance::Unexplained(1)),
                },
            ],
            links_left: 2,
        };
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Fixed(snapshot)));
        let text = crate::metrics::exposition(&registry);
        let shown: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            seaway_proxy_service_flows_total{namespace="",service="",direction="internal"} 9
            seaway_proxy_service_flows_total{namespace="default",service="web",direction="internal"} 7
            seaway_proxy_service_flows_total{namespace="default",service="web",direction="external"} 2
            seaway_proxy_service_drops_total{namespace="default",service="web",direction="internal",reason="no_endpoint"} 1
            seaway_proxy_service_drops_total{namespace="default",service="web",direction="external",reason="source_range"} 3
            seaway_proxy_verdicts_total{verdict="forward"} 5
            seaway_proxy_verdicts_total{verdict="rejected"} 1
            seaway_proxy_links_left{reason="unknown_header"} 2
            seaway_proxy_map_entries{map="BACKENDS"} 3
            seaway_proxy_map_entries{map="FLOWS"} 4
            seaway_proxy_map_entries{map="AFFINITY"} 1
            seaway_proxy_map_max_entries{map="BACKENDS"} 4096
            seaway_proxy_map_max_entries{map="FLOWS"} 131072
            seaway_proxy_map_max_entries{map="AFFINITY"} 65536
            seaway_proxy_map_memory_bytes{map="BACKENDS"} 512
            seaway_proxy_map_memory_bytes{map="FLOWS"} 4096
            seaway_proxy_map_memory_bytes{map="AFFINITY"} 1024
            seaway_proxy_map_evictions_total{map="FLOWS"} 6
            seaway_proxy_map_evictions_total{map="AFFINITY"} 0"#]]
        .assert_eq(&shown.join("\n"));
    }
}
