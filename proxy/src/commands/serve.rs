//! The daemon at work: the reconcile loop over one mode, until another is wanted.

use std::sync::Arc;
use std::time::Duration;

use seaway_cluster::direct::Answering;
use seaway_cluster::{EventRecorder, Source};
use seaway_model::{Desired, DirectAnswers, InputEvent, NodeSettings};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::cleanup::cleanup_mode;
use super::setup::{self, ThisNode};
use crate::cli::Mode;
use crate::companion::{self, Companion};
use crate::config::{Config, ConntrackSettings};
use crate::conntrack::{self, Both, Cleaner, Place};
use crate::dataplane::Dataplane;
use crate::direct::Announcer;
use crate::ebpf::{self, Aside, EbpfDataplane, Forwarding, Labelled, Observed, Remains};
use crate::events::Events;
use crate::health::Health;
use crate::healthcheck::{Addresses, HealthChecks};
use crate::iptables::IptablesDataplane;
use crate::metrics::Metrics;
use crate::reconcile::{Ended, Reconciler};
use crate::switch::{self, Order, Outcome, SwitchError, Teller};
use crate::{privileges, systemd, tuning};

/// How long a change of mode waits for the API, which it does not depend on.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// The parts that serving takes.
pub(super) struct Daemon<'a> {
    pub(super) config: &'a Config,
    /// What connection tracking could not be told yet.
    pub(super) untuned: Option<&'a ConntrackSettings>,
    pub(super) this: &'a ThisNode,
    pub(super) source: Source,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    /// Where UDP clients stay bound to endpoints: in iptables mode, and in eBPF mode.
    pub(super) table: Arc<dyn Place>,
    pub(super) sockets: Arc<dyn Place>,
    pub(super) netfilter: companion::Metrics,
    /// Pods whose sockets eBPF mode does not translate.
    pub(super) left_alone: Labelled,
    /// Which nodes answer clients of others, and who says it of this one.
    pub(super) answering: watch::Receiver<Option<Answering>>,
    pub(super) direct: Announcer,
    pub(super) observed: Observed,
    pub(super) switch_metrics: switch::Metrics,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) shutdown: CancellationToken,
}

/// The loop over the mode in force.
enum Serving {
    Iptables(Box<Reconciler<IptablesDataplane>>, Remains),
    Ebpf(Box<Reconciler<EbpfDataplane>>, Beside),
}

/// What works beside eBPF mode for as long as it is there.
struct Beside {
    /// Leaves sockets of pods alone, of those with a sidecar and of those that ask for it.
    _aside: Aside,
    /// Rules for what the programs do not carry.
    companion: Arc<Companion>,
}

impl Serving {
    fn mode(&self) -> Mode {
        match self {
            Self::Iptables(..) => Mode::Iptables,
            Self::Ebpf(..) => Mode::Ebpf,
        }
    }

    async fn run(
        &mut self,
        inputs: &mut mpsc::Receiver<InputEvent>,
        orders: &mut mpsc::Receiver<Order>,
        shutdown: &CancellationToken,
    ) -> Ended {
        match self {
            Self::Iptables(reconciler, _) => reconciler.run(inputs, orders, shutdown).await,
            Self::Ebpf(reconciler, _) => reconciler.run(inputs, orders, shutdown).await,
        }
    }
}

impl Daemon<'_> {
    /// Runs the loop, over one mode after the other, until it ends for good.
    pub(super) async fn serve(mut self) -> anyhow::Result<Ended> {
        let mut inputs = setup::follow(self.source.clone(), self.this, setup::patiently);
        let mut serving = self.begin().await?;
        loop {
            match serving
                .run(&mut inputs, &mut self.orders, &self.shutdown)
                .await
            {
                Ended::FirstSync => {
                    if let Some(settings) = self.untuned {
                        tuning::apply(settings);
                    }
                    self.succeed_the_other_mode(&mut serving).await;
                    self.direct.say(self.answers(serving.mode()));
                    tracing::info!("in sync");
                    systemd::ready();
                }
                Ended::Switch(order) => serving = self.switch(serving, order).await,
                ended => return Ok(ended),
            }
        }
    }

    async fn begin(&self) -> anyhow::Result<Serving> {
        Ok(match self.config.mode {
            Mode::Iptables => {
                // Programs that are still there go soon.
                self.direct.say(self.answers(Mode::Iptables));
                let plane = setup::iptables(self.this).await?;
                Serving::Iptables(Box::new(self.reconciler(plane).await?), self.remains())
            }
            Mode::Ebpf => {
                let mut plane = self.ebpf()?;
                // Else rules may be in force, or nothing: both see to what begins until flows are taken over.
                if !plane.succeeds_programs()? {
                    plane.begin_handover()?;
                }
                let beside = self.beside()?;
                let reconciler = self.reconciler(plane).await?;
                let reconciler = reconciler.with_companion(beside.companion.clone());
                Serving::Ebpf(Box::new(reconciler), beside)
            }
        })
    }

    fn ebpf(&self) -> anyhow::Result<EbpfDataplane> {
        let plane = setup::ebpf(self.config, self.this)?.observed_by(&self.observed);
        Ok(plane.hearing(self.answering.clone()))
    }

    /// Whose clients this node answers. Without `--forwarding dsr` it takes packets as well, but need not say so.
    fn answers(&self, mode: Mode) -> DirectAnswers {
        match (mode, self.config.kernel.forwarding) {
            (Mode::Ebpf, Forwarding::Dsr) => DirectAnswers::All,
            _ => DirectAnswers::Begun,
        }
    }

    async fn reconciler<D: Dataplane>(&self, plane: D) -> anyhow::Result<Reconciler<D>> {
        let (failures, refused_ports) = mpsc::unbounded_channel();
        let addresses = self.health_check_addresses().await?;
        let checks = HealthChecks::start(addresses, self.health.clone(), failures);
        let events = Events::new(self.recorder(), self.metrics.clone());
        tokio::spawn(events.clone().tell_refused_ports(refused_ports));
        let reconciler = Reconciler::new(
            self.this.settings.clone(),
            plane,
            self.health.clone(),
            self.metrics.clone(),
        );
        Ok(reconciler
            .with_health_checks(checks)
            .with_events(events)
            .with_conntrack(self.cleaner(self.config.mode)))
    }

    /// Begins when it is told to.
    fn beside(&self) -> anyhow::Result<Beside> {
        let rules = setup::rules_of(self.this);
        Ok(Beside {
            _aside: Aside::start(
                &self.config.kernel.places.bpffs_root,
                self.left_alone.clone(),
            )?,
            companion: Arc::new(Companion::start(rules, self.netfilter.clone())),
        })
    }

    fn remains(&self) -> Remains {
        let direct = self.direct.clone();
        Remains::watch(&self.config.kernel.places.bpffs_root, move || {
            direct.say(DirectAnswers::No);
        })
    }

    fn cleaner(&self, mode: Mode) -> Cleaner {
        let settings = conntrack::Settings {
            node_port_addresses: self.this.node_port_addresses.clone(),
        };
        let place: Arc<dyn Place> = match mode {
            Mode::Iptables => Arc::new(Both(self.table.clone(), self.sockets.clone())),
            Mode::Ebpf => self.sockets.clone(),
        };
        Cleaner::start(settings, place)
    }

    /// After the first sync the other mode's flows are taken over and its state is removed: this mode serves already, so
    /// no connection finds neither. Whatever fails is said; the mode in force does not depend on it.
    async fn succeed_the_other_mode(&self, serving: &mut Serving) {
        let other = serving.mode().other();
        let flows = match serving {
            Serving::Iptables(reconciler, _) => {
                let (_, desired) = reconciler.parts();
                self.flows_of_programs(desired).await
            }
            Serving::Ebpf(reconciler, beside) => {
                let (plane, desired) = reconciler.parts();
                flows_of_rules(plane, desired, beside).await
            }
        };
        if let Err(error) = flows {
            tracing::error!("flows of {} mode may break: {error:#}", other.as_str());
        }
    }

    /// Of a daemon that ran in eBPF mode.
    async fn flows_of_programs(&self, desired: &Desired) -> anyhow::Result<()> {
        // Without a cgroup there are no programs either, but what is pinned goes in any case.
        if let Ok(mut plane) = setup::ebpf(self.config, self.this)
            && plane.is_in_force()?
        {
            switch::give_over(&mut plane, desired, &Teller::log()).await?;
            return Ok(());
        }
        // Sockets that were connected before the last start: see `Remains`.
        if ebpf::is_all_there_is(&self.config.kernel.places.bpffs_root)? {
            return Ok(());
        }
        self.remove(Mode::Ebpf).await
    }

    async fn remove(&self, mode: Mode) -> anyhow::Result<()> {
        for line in cleanup_mode(mode, &self.config.kernel.places).await? {
            tracing::info!(
                mode = mode.as_str(),
                "removed what the other mode had left: {line}"
            );
        }
        Ok(())
    }

    /// Changes the mode; the loop that goes on is the new one's, or the old one's if that failed.
    async fn switch(&self, serving: Serving, order: Order) -> Serving {
        let Order { mode, teller } = order;
        if mode == serving.mode() {
            teller.done(format!("the mode is {} already", mode.as_str()));
            return serving;
        }
        systemd::status("changing the mode");
        let serving = match serving {
            Serving::Iptables(reconciler, remains) => {
                // Before the same hooks come back.
                remains.leave().await;
                self.to_ebpf(reconciler, &teller).await
            }
            Serving::Ebpf(reconciler, beside) => {
                self.to_iptables(reconciler, beside, &teller).await
            }
        };
        systemd::status("in sync");
        serving
    }

    async fn to_ebpf(
        &self,
        mut reconciler: Box<Reconciler<IptablesDataplane>>,
        teller: &Teller,
    ) -> Serving {
        const MODE: Mode = Mode::Ebpf;
        // Before anything is touched.
        let prepared = setup::check_ebpf(&self.config.kernel.places).and_then(|()| {
            let plane = self.ebpf()?;
            Ok((plane, self.beside()?))
        });
        let (mut new, beside) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                cannot_begin(MODE, &error, teller);
                return Serving::Iptables(reconciler, self.remains());
            }
        };
        let (old, desired) = reconciler.parts();
        let result = switch::to_ebpf(old, &mut new, desired, teller).await;
        self.conclude(MODE, &result, teller);
        self.direct.say(self.answers(mode_after(MODE, &result)));
        let Ok(outcome) = result else {
            reconciler.compare();
            return Serving::Iptables(reconciler, self.remains());
        };
        let companion = beside.companion.clone();
        let reconciler = reconciler.replace(
            self.settings(MODE),
            new,
            self.cleaner(MODE),
            Some(companion.clone()),
        );
        companion.begin(!outcome.left.is_empty()).await;
        Serving::Ebpf(Box::new(reconciler), beside)
    }

    async fn to_iptables(
        &self,
        mut reconciler: Box<Reconciler<EbpfDataplane>>,
        beside: Beside,
        teller: &Teller,
    ) -> Serving {
        const MODE: Mode = Mode::Iptables;
        let prepared = async {
            privileges::check(MODE)?;
            let plane = setup::iptables(self.this).await?;
            Ok((plane, self.beside()?))
        };
        // The latter for the way back.
        let (mut new, again) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => {
                cannot_begin(MODE, &error, teller);
                return Serving::Ebpf(reconciler, beside);
            }
        };
        self.direct.say(self.answers(MODE));
        if !self.direct.has_said(self.answers(MODE), TOLD_WITHIN).await {
            teller.progress("the Node could not be told: other nodes may send clients' packets here for a while");
        }
        // Its rules are part of those that are written now.
        reconciler.leave_companion();
        drop(beside);
        let (old, desired) = reconciler.parts();
        let result = switch::to_iptables(old, &mut new, desired, teller).await;
        self.conclude(MODE, &result, teller);
        self.direct.say(self.answers(mode_after(MODE, &result)));
        if result.is_ok() {
            let cleaner = self.cleaner(MODE);
            let reconciler = reconciler.replace(self.settings(MODE), new, cleaner, None);
            return Serving::Iptables(Box::new(reconciler), self.remains());
        }
        let companion = again.companion.clone();
        let mut reconciler = reconciler.with_companion(companion.clone());
        reconciler.compare();
        // Whether flows need connection tracking is not known: if they do, it has to go on.
        companion.begin(true).await;
        Serving::Ebpf(Box::new(reconciler), again)
    }

    /// What is told about objects depends on what a mode can do.
    fn settings(&self, mode: Mode) -> NodeSettings {
        NodeSettings {
            carries_maglev: mode == Mode::Ebpf,
            ..self.this.settings.clone()
        }
    }

    /// Tells of the result, wherever it is asked for.
    fn conclude(&self, mode: Mode, result: &Result<Outcome, SwitchError>, teller: &Teller) {
        let took = teller.elapsed();
        self.switch_metrics.switched(mode, result, took);
        match result {
            Ok(outcome) => teller.done(format!(
                "the mode is {} now, after {} ms: {outcome}{}",
                mode.as_str(),
                took.as_millis(),
                self.until_when(mode)
            )),
            Err(error) => {
                teller.failed(format!("the mode stays {}: {error}", mode.other().as_str()));
            }
        }
    }

    /// A mode that is not the configured one does not outlive the daemon.
    fn until_when(&self, mode: Mode) -> String {
        let configured = self.config.mode;
        if mode == configured {
            return String::new();
        }
        format!(
            "; a daemon that is started anew takes the configured mode, which was {} when this one started (--mode, or \
             mode in the file of --config)",
            configured.as_str()
        )
    }

    /// Health check ports answer where node ports do.
    async fn health_check_addresses(&self) -> anyhow::Result<Addresses> {
        let Some(networks) = &self.this.node_port_addresses else {
            return Ok(Addresses::All);
        };
        let own = setup::own_addresses().await?;
        let within = |ip| networks.iter().any(|network| network.contains(ip));
        Ok(Addresses::Only(
            own.into_iter().filter(|ip| within(*ip)).collect(),
        ))
    }

    /// Manifests have nobody to record Events.
    fn recorder(&self) -> Option<EventRecorder> {
        match &self.source {
            Source::Kube(server) => Some(EventRecorder::start(
                server.client.clone(),
                &self.this.settings.name,
            )),
            Source::Manifests(_) => None,
        }
    }
}

/// The mode in force after a change to that one.
fn mode_after(mode: Mode, result: &Result<Outcome, SwitchError>) -> Mode {
    match result {
        Ok(_) => mode,
        Err(_) => mode.other(),
    }
}

fn cannot_begin(mode: Mode, error: &anyhow::Error, teller: &Teller) {
    teller.failed(format!(
        "cannot begin with mode {}: {error:#}",
        mode.as_str()
    ));
}

/// Takes over the flows of a daemon that ran in iptables mode, and what it has left.
async fn flows_of_rules(
    plane: &mut EbpfDataplane,
    desired: &Desired,
    beside: &Beside,
) -> anyhow::Result<()> {
    let adoption = match plane.is_handing_over() {
        true => Some(switch::take_over(plane, desired, &Teller::log()).await),
        false => None,
    };
    // Flows that began with rules and stay with connection tracking need it to go on.
    let left = plane.left_behind().await;
    // Rules of the other mode are its rules: it removes those that it does not need.
    beside.companion.begin(!matches!(left, Ok(0))).await;
    if let Some(adoption) = adoption {
        plane.forget(adoption?).await?;
    }
    left?;
    Ok(())
}
