//! The clean-up at work: beside the reconcile loop, one look for all changes since the last.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use seaway_kernel::conntrack::{Conntrack, Filter};
use seaway_kernel::{Error, Netlink};
use seaway_model::{Change, Desired};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::frontends::{Due, Frontends};
use super::metrics::Metrics;
use super::stale::{NodeAddresses, is_stale, stale};

/// First wait after a failure; doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Between two looks passes this many times what the first one took, so that changes in a row share one look and the
/// work stays below a fifth of a core.
const IDLE_PER_WORK: u32 = 4;
/// But no longer than this: a client waits for it.
const IDLE_MAX: Duration = Duration::from_millis(300);

/// What the operator decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--nodeport-addresses`: node ports are served at addresses in here; without, at all but loopback.
    pub node_port_addresses: Option<Vec<IpNetwork>>,
}

/// Deletes stale entries of one network namespace for as long as it lives.
#[derive(Debug)]
pub struct Cleaner {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    frontends: Mutex<Frontends>,
    wake: Notify,
    settings: Settings,
    metrics: Metrics,
}

impl Cleaner {
    /// Starts it for the network namespace of the calling thread, which must be that of the tokio runtime.
    pub fn start(settings: Settings, metrics: Metrics) -> Self {
        let shared = Arc::new(Shared {
            frontends: Mutex::default(),
            wake: Notify::new(),
            settings,
            metrics,
        });
        let task = tokio::spawn(follow(shared.clone()));
        Self { shared, task }
    }

    /// Says that the rules for `change` are in force. Waits for nothing; costs the UDP ports of the Services that
    /// changed.
    pub fn programmed(&self, desired: &Desired, change: &Change) {
        self.shared.frontends().update(desired, change);
        self.shared.wake.notify_one();
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(shared: Arc<Shared>) {
    let mut failures = 0_u32;
    loop {
        let due = shared.frontends().take_due();
        if due == Due::Nothing {
            shared.wake.notified().await;
            continue;
        }
        let started = Instant::now();
        let pause = match look(&shared, &due).await {
            Ok(()) => {
                shared.frontends().looked_at(&due);
                failures = 0;
                (started.elapsed() * IDLE_PER_WORK).min(IDLE_MAX)
            }
            Err(error) => {
                shared.frontends().put_back(due);
                shared.metrics.failures.inc();
                let pause = RETRY_FIRST
                    .saturating_mul(1 << failures.min(10))
                    .min(RETRY_MAX);
                failures += 1;
                let retry_in_ms = pause.as_millis();
                tracing::warn!(%error, retry_in_ms, "cannot delete stale UDP flows; their clients stay cut off");
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// One look at what is due.
async fn look(shared: &Arc<Shared>, due: &Due) -> Result<(), Error> {
    let (listings, has_node_ports) = {
        let frontends = shared.frontends();
        (frontends.listings(due), frontends.has_node_ports())
    };
    let node = if has_node_ports {
        let served = shared.settings.node_port_addresses.as_deref();
        NodeAddresses::new(own_addresses().await?, served)
    } else {
        NodeAddresses::default()
    };
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || shared.clean(&listings, &node))
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

async fn own_addresses() -> Result<impl Iterator<Item = IpAddr>, Error> {
    let addresses = Netlink::new()?.addresses(None).await?;
    Ok(addresses.into_iter().map(|address| address.network.ip()))
}

impl Shared {
    fn frontends(&self) -> MutexGuard<'_, Frontends> {
        // Every change to it is complete or did not begin.
        self.frontends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through the listings. Blocks, but never holds the frontends for longer than a portion takes.
    fn clean(&self, listings: &[Filter], node: &NodeAddresses) -> Result<(), Error> {
        let mut table = Conntrack::open()?;
        let mut refused = None;
        for filter in listings {
            let started = Instant::now();
            let (mut seen, mut deleted) = (0, 0);
            let mut found = Vec::new();
            table.list(filter, |flows| {
                seen += flows.len();
                found.extend(stale(flows, &self.frontends(), node));
            })?;
            for flow in &found {
                // An endpoint may have come back since the listing.
                if !is_stale(flow, &self.frontends(), node) {
                    continue;
                }
                match table.delete(flow) {
                    Ok(true) => deleted += 1,
                    // Expired by itself.
                    Ok(false) => {}
                    Err(error) => refused = Some(error),
                }
            }
            let took = started.elapsed();
            self.metrics.cleaned(filter.family, deleted, took);
            let ms = took.as_millis();
            tracing::debug!(?filter, seen, deleted, ms, "looked for stale UDP flows");
        }
        refused.map_or(Ok(()), Err)
    }
}
