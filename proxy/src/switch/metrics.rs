//! Which mode is in force, and how changes of it went.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Labelled;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use super::{Outcome, SwitchError};
use crate::cli::Mode;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Handles to the metrics, and the mode that `/proxyMode` answers; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    mode: watch::Sender<Mode>,
    in_force: Labelled<Labels<1>, Gauge>,
    switches: Labelled<Labels<2>, Counter>,
    flows: Labelled<Labels<2>, Counter>,
    took: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers them, for a daemon that starts in this mode.
    pub fn new(registry: &mut Registry, mode: Mode) -> Self {
        let metrics = Self {
            mode: watch::Sender::new(mode),
            in_force: Labelled::default(),
            switches: Labelled::default(),
            flows: Labelled::default(),
            took: Gauge::default(),
        };
        let ours = registry.sub_registry_with_prefix("seaway_proxy");
        ours.register("mode", "1 for the mode in force", metrics.in_force.clone());
        ours.register(
            "mode_switches",
            "Changes of mode while running, by mode and whether they came about",
            metrics.switches.clone(),
        );
        ours.register(
            "mode_switch_flows",
            "Flows that went over to a mode, and those that stayed in connection tracking",
            metrics.flows.clone(),
        );
        ours.register_with_unit(
            "mode_switch_duration",
            "What the last change of mode took",
            Unit::Seconds,
            metrics.took.clone(),
        );
        metrics.show(mode);
        metrics
    }

    /// The mode in force, and its changes.
    pub fn mode(&self) -> watch::Receiver<Mode> {
        self.mode.subscribe()
    }

    /// Records a change.
    pub fn switched(&self, to: Mode, result: &Result<Outcome, SwitchError>, took: Duration) {
        self.took.set(took.as_secs_f64());
        let count = |outcome| {
            let labels = [("to", to.as_str()), ("outcome", outcome)];
            self.switches.get_or_create(&labels).inc();
        };
        let Ok(outcome) = result else {
            count("failed");
            return;
        };
        count("done");
        let flows = |what, number: usize| {
            let labels = [("to", to.as_str()), ("flows", what)];
            self.flows.get_or_create(&labels).inc_by(number as u64);
        };
        flows("moved", outcome.flows);
        flows("left", outcome.left.iter().map(|(_, n)| n).sum());
        self.show(to);
    }

    fn show(&self, mode: Mode) {
        for each in [Mode::Iptables, Mode::Ebpf] {
            let gauge = self.in_force.get_or_create(&[("mode", each.as_str())]);
            gauge.set(i64::from(each == mode));
        }
        self.mode.send_replace(mode);
    }
}
