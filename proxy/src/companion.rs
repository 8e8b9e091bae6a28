//! What eBPF mode leaves to the kernel's own netfilter: SCTP, as rules of iptables mode for those ports alone.
//!
//! The programs let pass what they do not carry, so that it meets the rules as in iptables mode. A node without such a
//! Service has no rules and needs no iptables.
//!
//! It works beside the reconcile loop, as what it carries has nothing to do with the rest: [`Companion::programmed`] notes
//! what changed and returns. It begins when it is told to, since until then the rules of iptables mode may be in force.

mod share;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use seaway_kernel::Capabilities;
use seaway_model::{Change, Desired};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::dataplane::{ApplyError, Dataplane};
use crate::iptables::{IptablesConfig, IptablesDataplane};
pub use share::{Share, split};

/// First wait after a failure; doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps the rules of one network namespace in step for as long as it lives. They stay when it goes.
#[derive(Debug)]
pub struct Companion {
    shared: Arc<Shared>,
    begun: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    config: IptablesConfig,
    share: Mutex<Share>,
    wake: Notify,
    begin: Notify,
    /// Flows that began with rules of iptables mode need connection tracking to go on.
    keeps_flows: AtomicBool,
    metrics: Metrics,
}

/// Handles to the metrics.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    services: Gauge,
    failures: Counter,
}

impl Metrics {
    /// Creates the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let ours = registry.sub_registry_with_prefix("seaway_proxy_netfilter");
        ours.register(
            "services",
            "Services with ports that eBPF mode leaves to netfilter",
            metrics.services.clone(),
        );
        ours.register(
            "failures",
            "Attempts to write the rules of such ports that failed and are repeated",
            metrics.failures.clone(),
        );
        metrics
    }
}

impl Companion {
    /// Starts it for the network namespace of the tokio runtime.
    pub fn start(config: IptablesConfig, metrics: Metrics) -> Self {
        let shared = Arc::new(Shared {
            config,
            share: Mutex::default(),
            wake: Notify::new(),
            begin: Notify::new(),
            keeps_flows: AtomicBool::new(false),
            metrics,
        });
        let (tell, begun) = watch::channel(false);
        let task = tokio::spawn(follow(shared.clone(), tell));
        Self {
            shared,
            begun,
            task,
        }
    }

    /// Says what is wanted now. Waits for nothing; costs the Services that changed.
    pub fn programmed(&self, desired: &Desired, change: &Change) {
        let services = {
            let mut share = self.shared.share();
            share.update(desired, change);
            share.desired().services.len()
        };
        let services = i64::try_from(services).unwrap_or(i64::MAX);
        self.shared.metrics.services.set(services);
        self.shared.wake.notify_one();
    }

    /// Rules of iptables mode are in its hands from now on: those that it does not want go. Waits for the first attempt;
    /// a failed one is told of by the log and repeated. With `keeps_flows` connection tracking goes on with what began by
    /// rules that go ([`IptablesDataplane::retire`]).
    pub async fn begin(&self, keeps_flows: bool) {
        self.shared
            .keeps_flows
            .store(keeps_flows, Ordering::Relaxed);
        self.shared.begin.notify_one();
        // An error means that the task is gone, and nothing is to be waited for.
        let _ = self.begun.clone().wait_for(|begun| *begun).await;
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn share(&self) -> MutexGuard<'_, Share> {
        // Every change to it is complete or did not begin.
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(shared: Arc<Shared>, begun: watch::Sender<bool>) {
    shared.begin.notified().await;
    let mut plane: Option<IptablesDataplane> = None;
    let mut failures = 0_u32;
    // What is there from earlier, of whatever mode.
    shared.share().everything();
    loop {
        let (desired, change) = shared.share().take();
        let result = match change {
            Some(change) => sync(&mut plane, &shared, &desired, &change).await,
            None => Ok(()),
        };
        begun.send_replace(true);
        match result {
            Ok(()) => failures = 0,
            Err(error) => {
                shared.metrics.failures.inc();
                let pause = RETRY_FIRST
                    .saturating_mul(1 << failures.min(10))
                    .min(RETRY_MAX);
                failures += 1;
                let retry_in_ms = pause.as_millis();
                tracing::error!(retry_in_ms, "cannot write the rules for SCTP: {error}");
                tokio::time::sleep(pause).await;
                shared.share().everything();
                continue;
            }
        }
        let disturbed = async {
            match &mut plane {
                Some(plane) => plane.watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.wake.notified() => {}
            reason = disturbed => {
                match reason {
                    Ok(reason) => tracing::warn!(%reason, "comparing the rules for SCTP with the kernel"),
                    Err(error) => tracing::warn!(%error, "cannot follow the rules for SCTP; comparing them"),
                }
                shared.share().everything();
            }
        }
    }
}

/// Brings the kernel in step: with rules while there is anything to carry, without any while there is not.
async fn sync(
    plane: &mut Option<IptablesDataplane>,
    shared: &Shared,
    desired: &Desired,
    change: &Change,
) -> Result<(), ApplyError> {
    let config = &shared.config;
    if desired.services.is_empty() {
        let machine = probe().await?;
        let mut last = match plane.take() {
            Some(plane) => plane,
            None => IptablesDataplane::new(config, &machine),
        };
        let keeps = shared.keeps_flows.load(Ordering::Relaxed) && machine.iptables.is_some();
        let removed = match keeps {
            true => last.retire().await?,
            false => last.cleanup().await?,
        };
        for line in removed {
            tracing::info!("removed what no port needs any more: {line}");
        }
        return Ok(());
    }
    let plane = match plane {
        Some(plane) => plane,
        None => plane.insert(dataplane(config).await?),
    };
    if *change == Change::Full {
        plane.observe().await?;
        plane.rehearse().await?;
    }
    let plan = plane.plan(desired, change);
    let report = plane.apply(plan).await?;
    tracing::debug!(
        operations = report.operations,
        "rules for SCTP are in force"
    );
    Ok(())
}

/// The plane that writes such rules.
///
/// # Errors
///
/// Names iptables if it is not installed.
pub async fn dataplane(config: &IptablesConfig) -> Result<IptablesDataplane, ApplyError> {
    let machine = probe().await?;
    if machine.iptables.is_none() {
        return Err(ApplyError::Missing {
            what: "iptables".to_owned(),
            remedy: "eBPF mode carries SCTP by its rules; install it".to_owned(),
        });
    }
    // What connection tracking calls invalid may be half of a connection that the programs carry.
    let config = IptablesConfig {
        drop_invalid: false,
        ..config.clone()
    };
    Ok(IptablesDataplane::new(&config, &machine))
}

async fn probe() -> Result<Capabilities, ApplyError> {
    Capabilities::probe()
        .await
        .map_err(|error| ApplyError::Failed {
            what: "look at the machine".to_owned(),
            reason: error.to_string(),
        })
}
