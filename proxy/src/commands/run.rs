//! `seaway-proxy run`.

use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use seaway_cluster::{EventRecorder, Source};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cleanup::cleanup_mode;
use super::setup::{self, ThisNode};
use crate::cli::{Mode, RunArgs};
use crate::companion::{self, Companion};
use crate::config::{Config, ConntrackSettings, RunConfig};
use crate::conntrack::{self, Cleaner, Place, Table};
use crate::dataplane::Dataplane;
use crate::ebpf::{Aside, Observed, Sockets};
use crate::events::Events;
use crate::health::Health;
use crate::healthcheck::{Addresses, HealthChecks};
use crate::lock::NodeLock;
use crate::metrics::{Datapath, Metrics};
use crate::reconcile::{Ended, Reconciler};
use crate::{admin, peers, privileges, systemd, tuning};

/// Follows the inputs until told to stop.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let (config, run) = Config::for_run(&args)?;
    if run.init_only {
        setup::tell(&run.notes);
        tuning::apply(&run.conntrack);
        return Ok(());
    }
    privileges::check(config.mode)?;
    let _lock = NodeLock::take(&config.kernel.run_dir)?;
    // Before the ports: another proxy has them, and is the better reason.
    prepare(&run).await?;
    let health_listener = admin::bind(run.healthz, "healthz-bind-address").await?;
    let metrics_listener = admin::bind(run.metrics, "metrics-bind-address").await?;
    let shutdown = shutdown_on_signals()?;
    setup::tell(&config.notes);
    setup::tell(&run.notes);

    let health = Health::default();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let observed = Observed::default();
    registry.register_collector(Box::new(Datapath(observed.clone())));
    // Flows of the other mode are its own.
    let bound: Arc<dyn Place> = match config.mode {
        Mode::Iptables => Arc::new(Table::new(conntrack::Metrics::new(&mut registry))),
        Mode::Ebpf => Arc::new(Sockets::new(&config.kernel.bpffs_root, &mut registry)),
    };
    let netfilter_metrics =
        (config.mode == Mode::Ebpf).then(|| companion::Metrics::new(&mut registry));
    tokio::spawn(admin::serve_health(
        health_listener,
        health.clone(),
        metrics.kube_proxy.clone(),
    ));
    tokio::spawn(admin::serve_metrics(
        metrics_listener,
        Arc::new(registry),
        config.mode,
        config.configz(&run),
    ));
    tokio::spawn(systemd::watchdog(health.clone()));

    let source = setup::source(&config).await?;
    systemd::status("waiting for the API");
    let resolved = tokio::select! {
        resolved = ThisNode::resolve(&config, &source) => resolved?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (this, node_watch) = resolved;
    tracing::info!(node = %this.settings.name, mode = config.mode.as_str(), "starting");
    // Not before it is clear that there is something to serve: a start that fails changes nothing.
    let tuned = tuning::apply(&run.conntrack);
    let companion = match (config.mode, netfilter_metrics) {
        (Mode::Ebpf, Some(metrics)) => {
            let config = setup::rules_of(&this);
            Some(Arc::new(Companion::start(config, metrics)))
        }
        _ => None,
    };
    let daemon = Daemon {
        config: &config,
        untuned: (!tuned).then_some(&run.conntrack),
        this: &this,
        source,
        health,
        metrics,
        bound,
        companion,
        shutdown,
    };
    let _aside = match config.mode {
        Mode::Iptables => None,
        Mode::Ebpf => Some(Aside::start(&config.kernel.bpffs_root)?),
    };
    let serving = async {
        match config.mode {
            Mode::Iptables => daemon.serve(setup::iptables(&this).await?).await,
            Mode::Ebpf => {
                let dataplane = setup::ebpf(&config, &this)?.observed_by(&observed);
                daemon.serve(dataplane).await
            }
        }
    };
    let settings_gone = async {
        match node_watch {
            Some(watch) => watch.changed(&config).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = serving => ended?,
        // As kube-proxy: settings are read once, and whoever supervises us starts us again.
        reason = settings_gone => anyhow::bail!("{reason}: starting anew with it is for the supervisor"),
    };
    systemd::stopping();
    match ended {
        Ended::Shutdown => {
            tracing::info!("stopping; what is programmed stays in force");
            Ok(())
        }
        Ended::SourceClosed => anyhow::bail!("the source of Services ended unexpectedly"),
    }
}

/// What has to be so before anything is programmed.
async fn prepare(run: &RunConfig) -> anyhow::Result<()> {
    if let Some(score) = run.oom_score_adj {
        let file = "/proc/self/oom_score_adj";
        std::fs::write(file, score.to_string())
            .with_context(|| format!("cannot write {score} to {file} (--oom-score-adj)"))?;
    }
    let found = peers::find(&peers::observe().await?);
    if run.ignore_other_proxies {
        for peer in found.iter().filter(|peer| peer.in_our_place) {
            tracing::warn!("another proxy is on this node: {peer}");
        }
        return Ok(());
    }
    peers::refuse(&found)
}

/// The parts that serving takes.
struct Daemon<'a> {
    config: &'a Config,
    /// What connection tracking could not be told yet.
    untuned: Option<&'a ConntrackSettings>,
    this: &'a ThisNode,
    source: Source,
    health: Health,
    metrics: Metrics,
    /// Where UDP clients stay bound to endpoints.
    bound: Arc<dyn Place>,
    /// What eBPF mode leaves to netfilter.
    companion: Option<Arc<Companion>>,
    shutdown: CancellationToken,
}

impl Daemon<'_> {
    /// Runs the loop. After the first sync the other mode's state is removed: this mode serves already, so no
    /// connection finds neither.
    async fn serve(self, dataplane: impl Dataplane) -> anyhow::Result<Ended> {
        let (failures, refused_ports) = mpsc::unbounded_channel();
        let addresses = self.health_check_addresses().await?;
        let checks = HealthChecks::start(addresses, self.health.clone(), failures);
        let events = Events::new(self.recorder(), self.metrics.clone());
        tokio::spawn(events.clone().tell_refused_ports(refused_ports));

        let inputs = setup::follow(self.source, self.this);
        let other = self.config.mode.other();
        let companion = self.companion;
        let kernel = &self.config.kernel;
        let untuned = self.untuned;
        let settings = conntrack::Settings {
            node_port_addresses: self.this.node_port_addresses.clone(),
        };
        let mut reconciler = Reconciler::new(
            self.this.settings.clone(),
            dataplane,
            self.health,
            self.metrics,
        )
        .with_health_checks(checks)
        .with_events(events)
        .with_conntrack(Cleaner::start(settings, self.bound));
        if let Some(companion) = &companion {
            reconciler = reconciler.with_companion(companion.clone());
        }
        let ended = reconciler
            .run(inputs, self.shutdown, async || {
                if let Some(settings) = untuned {
                    tuning::apply(settings);
                }
                if let Some(companion) = &companion {
                    // Rules of the other mode are its rules: it removes those that it does not need.
                    companion.begin().await;
                    tracing::info!("in sync");
                    return systemd::ready();
                }
                match cleanup_mode(other, kernel).await {
                    Ok(removed) => {
                        for line in removed {
                            tracing::info!(
                                mode = other.as_str(),
                                "removed what the other mode had left: {line}"
                            );
                        }
                    }
                    Err(error) => {
                        tracing::error!(
                            "cannot remove what {} mode left: {error:#}",
                            other.as_str()
                        );
                    }
                }
                tracing::info!("in sync");
                systemd::ready();
            })
            .await;
        Ok(ended)
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
            Source::Kube(client) => Some(EventRecorder::start(
                client.clone(),
                &self.this.settings.name,
            )),
            Source::Manifests(_) => None,
        }
    }
}

/// Cancelled by SIGTERM or SIGINT.
fn shutdown_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = seaway_daemon::stop_signal().context("cannot handle signals")?;
    let shutdown = CancellationToken::new();
    let stopping = shutdown.clone();
    tokio::spawn(async move {
        stop.await;
        stopping.cancel();
    });
    Ok(shutdown)
}
