//! `seaway-proxy run`.

use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::reload;
use super::serve::Daemon;
use super::setup::{self, ThisNode};
use crate::cli::{Mode, RunArgs};
use crate::config::{Config, RunConfig};
use crate::direct::Announcer;
use crate::ebpf::{Observed, Sockets};
use crate::health::Health;
use crate::lock::NodeLock;
use crate::metrics::{Datapath, Metrics};
use crate::reconcile::Ended;
use crate::{admin, companion, conntrack, peers, switch, systemd, tuning};

/// Follows the inputs until told to stop.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let (config, run) = Config::for_run(&args)?;
    if run.init_only {
        setup::tell(&run.notes);
        tuning::apply(&run.conntrack);
        return Ok(());
    }
    // No attempt later would end otherwise.
    setup::check_mode(&config)?;
    let _lock = NodeLock::take(&config.kernel.places.run_dir)?;
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
    let table = conntrack::Table::new(conntrack::Metrics::new(&mut registry));
    let sockets = Sockets::new(&config.kernel.places.bpffs_root, &mut registry);
    let netfilter = companion::Metrics::new(&mut registry);
    let switch_metrics = switch::Metrics::new(&mut registry, config.mode);
    let (order, orders) = mpsc::channel(1);
    let control = switch::control::listen(&config.kernel.places.run_dir)?;
    tokio::spawn(switch::control::serve(control, order.clone()));
    tokio::spawn(reload::on_hangup(
        hangup()?,
        args,
        (config.clone(), run.clone()),
        switch_metrics.mode(),
        order,
    ));
    tokio::spawn(admin::serve_health(
        health_listener,
        health.clone(),
        metrics.kube_proxy.clone(),
    ));
    tokio::spawn(admin::serve_metrics(
        metrics_listener,
        Arc::new(registry),
        switch_metrics.mode(),
        configz(&config, &run),
    ));
    tokio::spawn(systemd::watchdog(health.clone()));

    let source = setup::source(&config).await?;
    systemd::status("waiting for the API");
    let resolved = tokio::select! {
        resolved = ThisNode::resolve(&config, &source, setup::patiently) => resolved?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (this, node_watch) = resolved;
    tracing::info!(node = %this.settings.name, mode = config.mode.as_str(), "starting");
    // Not before it is clear that there is something to serve: a start that fails changes nothing.
    let tuned = tuning::apply(&run.conntrack);
    let left_alone = setup::left_alone(&run, &source, &this);
    let answering = setup::answering(&config, &source);
    let direct = Announcer::start(&source, &this.settings.name);
    let daemon = Daemon {
        config: &config,
        untuned: (!tuned).then_some(&run.conntrack),
        this: &this,
        source,
        health,
        metrics,
        table: Arc::new(table),
        sockets: Arc::new(sockets),
        netfilter,
        left_alone,
        answering,
        direct,
        observed,
        switch_metrics,
        orders,
        shutdown,
    };
    let serving = daemon.serve();
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
        _ => anyhow::bail!("the source of Services ended unexpectedly"),
    }
}

/// The answer of `/configz` in the mode in force.
fn configz(config: &Config, run: &RunConfig) -> impl Fn(Mode) -> serde_json::Value + Clone + use<> {
    let (config, run) = (config.clone(), run.clone());
    move |mode| {
        let mut shown = config.clone();
        shown.mode = mode;
        shown.configz(&run)
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

/// From now on SIGHUP does not end the daemon.
fn hangup() -> anyhow::Result<Signal> {
    signal(SignalKind::hangup()).context("cannot handle SIGHUP")
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
