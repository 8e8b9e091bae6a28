//! The daemon: waits for what concerns it, and compares.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use prometheus_client::registry::Registry;
use seaway_cluster::{NodeScope, Source, Wants, stream_telling};
use seaway_daemon::privileges::{Capability, require};
use seaway_daemon::{SILENCE, release_memory, stop_signal};
use seaway_kernel::{Command, Netlink, Sysctl, Watch, WatchGroups, file_lock};
use tokio::net::TcpListener;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::admin::{self, Shared};
use crate::cli::RunArgs;
use crate::metrics::Metrics;
use crate::plan::Findings;
use crate::probe::Probes;
use crate::reconcile::{Outcome, Reconciler};

/// Between two comparisons: a device that goes away sends several events. The first change after a quiet time is made
/// at once.
const SETTLE: Duration = Duration::from_millis(20);

/// How often the counter of strangers is read, and thereby whether the table is still there.
const COUNT: Duration = Duration::from_secs(2);

/// How often everything is compared though nothing was heard: somebody else's `iptables -F` sends no event.
const AUDIT: Duration = Duration::from_secs(30);

/// After a failure: soon, then less often.
const RETRY: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// So many peers that are not connected have a line each, when they come together.
const LOGGED: usize = 5;

const GROUPS: WatchGroups = WatchGroups {
    links: true,
    addresses: true,
    routes: true,
    neighbours: true,
};

/// Runs until a signal. The kernel keeps its state: pods go on, and the next start adopts it.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let node_name = args.node.name()?;
    privileged("seaway-overlay run")?;
    let settings = args.procfs.join("sys/net");
    ensure!(
        settings.is_dir(),
        "{} (--procfs) holds no kernel settings: {} is missing",
        args.procfs.display(),
        settings.display()
    );
    let _lock = lock(&args.places.run_dir)?;
    Command::new("iptables").arg("--version").output().await?;
    let source = Source::open(
        args.node.kubeconfig.as_deref(),
        args.node.manifests.as_deref(),
    )
    .await?;
    let listener = TcpListener::bind(args.healthz_bind_address)
        .await
        .with_context(|| {
            let address = args.healthz_bind_address;
            format!("cannot listen on {address} (--healthz-bind-address)")
        })?;
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let probes = match Probes::start() {
        Ok(probes) => Some(probes),
        Err(error) => {
            tracing::warn!("peers are not probed: {error}");
            None
        }
    };
    let shared = Shared::new(probes.clone());
    tokio::spawn(admin::serve(listener, shared.clone(), Arc::new(registry)));

    let netlink = Netlink::new()?;
    let reconciler = Reconciler::new(
        netlink,
        Sysctl::at(&args.procfs),
        node_name,
        args.settings(),
        args.places.to_places(),
    );
    let stop = stop_signal().context("cannot handle signals")?;
    tokio::select! {
        stopped = follow(reconciler, source, probes, shared, metrics) => stopped,
        () = stop => {
            tracing::info!("stopping; the kernel keeps its state");
            Ok(())
        }
    }
}

async fn follow(
    mut reconciler: Reconciler,
    source: Source,
    probes: Option<Probes>,
    shared: Shared,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let wants = Wants {
        nodes: NodeScope::All,
        ..Wants::default()
    };
    let mut inputs = stream_telling(source, wants, SILENCE);
    let mut kernel = Watch::new(GROUPS)?;
    let mut audit = every(AUDIT);
    let mut count = every(COUNT);
    let mut due: Option<Instant> = None;
    let mut last = Instant::now();
    let mut failed = 0;
    let mut ready = false;
    // Nothing is done before all Nodes are known; who asks meanwhile hears which node this is.
    report(reconciler.sync().await, &shared);
    loop {
        let wanted = tokio::select! {
            event = inputs.recv() => match event {
                Some(event) => reconciler.hear(event),
                None => bail!("the source of Nodes ended"),
            },
            event = kernel.next() => match event {
                Some(event) => reconciler.concerns(&event),
                None => {
                    tracing::warn!("kernel events were lost; comparing everything");
                    kernel = Watch::new(GROUPS)?;
                    reconciler.distrust().await
                }
            },
            findings = found(probes.as_ref()) => reconciler.find(findings),
            _ = count.tick(), if reconciler.is_settled() => match reconciler.strangers() {
                Some(count) => {
                    shared.set_strangers(count);
                    metrics.strangers.set(i64::try_from(count).unwrap_or(i64::MAX));
                    false
                }
                None => true,
            },
            _ = audit.tick() => reconciler.distrust().await,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                let started = Instant::now();
                let mut outcome = reconciler.sync().await;
                last = Instant::now();
                let in_sync = outcome.status.in_sync;
                if let Some((probes, aim)) = probes.as_ref().zip(outcome.aim.take()) {
                    probes.aim(aim);
                }
                metrics.record(&outcome, last - started);
                report(outcome, &shared);
                metrics.peers.set(whole(shared.connected()));
                if in_sync {
                    failed = 0;
                    if !ready {
                        ready = true;
                        // Listing and the first comparison took much that is not needed again.
                        release_memory();
                        sd_notify::notify(&[sd_notify::NotifyState::Ready])?;
                    }
                } else {
                    due = Some(Instant::now() + RETRY[failed.min(RETRY.len() - 1)]);
                    failed += 1;
                }
                false
            }
        };
        if wanted {
            let soon = Instant::now().max(last + SETTLE);
            due = Some(due.map_or(soon, |due| due.min(soon)));
        }
    }
}

/// Not at once: what there is to be done at the start is done anyway.
fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What probing found, when that is new.
async fn found(probes: Option<&Probes>) -> Findings {
    match probes {
        Some(probes) => {
            probes.changed().await;
            probes.findings()
        }
        None => std::future::pending().await,
    }
}

/// Logs what is new, and puts it in place.
fn report(outcome: Outcome, shared: &Shared) {
    let (before, status) = (shared.get(), outcome.status);
    if status.errors != before.errors {
        for error in &status.errors {
            tracing::error!("{error}");
        }
    }
    if status.warnings != before.warnings {
        for warning in &status.warnings {
            tracing::warn!("{warning}");
        }
    }
    let in_sync = status.in_sync && !before.in_sync;
    for trouble in in_short(shared.set(status, outcome.peers)) {
        tracing::warn!("{trouble}");
    }
    if in_sync {
        tracing::info!(peers = shared.connected(), "in sync");
    }
}

/// The first of many, and how many more there are.
fn in_short(mut troubles: Vec<String>) -> Vec<String> {
    let more = troubles.len().saturating_sub(LOGGED);
    if more > 0 {
        troubles.truncate(LOGGED);
        troubles.push(format!(
            "not connected either: {more} more; `seaway-overlay status` names them"
        ));
    }
    troubles
}

/// Links and routes; the legacy variant of iptables talks to its tables through a raw socket.
pub const NEEDED: [Capability; 2] = [Capability::NET_ADMIN, Capability::NET_RAW];

pub(crate) fn privileged(command: &str) -> std::io::Result<()> {
    require(command, &NEEDED)
}

/// Two daemons would undo each other's work, and one that runs would undo a cleanup.
pub(crate) fn lock(run_dir: &Path) -> anyhow::Result<File> {
    let path = run_dir.join("overlay.lock");
    std::fs::create_dir_all(run_dir)
        .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
        .with_context(|| format!("cannot open {}", path.display()))
        .and_then(|file| match file_lock::take(&file) {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another seaway-overlay runs on this node (it holds {}); stop it first",
                    path.display()
                )
            }
            Err(TryLockError::Error(e)) => {
                Err(e).with_context(|| format!("cannot lock {}", path.display()))
            }
        })
}

impl Metrics {
    fn record(&self, outcome: &Outcome, took: Duration) {
        self.syncs.inc();
        self.listings.inc_by(outcome.listed.into());
        self.duration.observe(took.as_secs_f64());
        if !outcome.status.in_sync {
            self.failures.inc();
        }
        self.operations.inc_by(outcome.operations as u64);
        self.problems.set(whole(outcome.problems));
        self.mtu.set(outcome.status.mtu.unwrap_or_default().into());
    }
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_troubles_the_first_are_told() {
        let numbered =
            |count: usize| -> Vec<String> { (0..count).map(|n| n.to_string()).collect() };
        for (count, last) in [
            (0, None),
            (1, Some("0")),
            (5, Some("4")),
            (
                6,
                Some("not connected either: 1 more; `seaway-overlay status` names them"),
            ),
            (
                1000,
                Some("not connected either: 995 more; `seaway-overlay status` names them"),
            ),
        ] {
            let told = in_short(numbered(count));
            assert_eq!(told.last().map(String::as_str), last);
            assert_eq!(told.len(), count.min(LOGGED + 1));
            assert_eq!(
                told[..count.min(LOGGED)],
                numbered(count)[..count.min(LOGGED)]
            );
        }
    }
}
