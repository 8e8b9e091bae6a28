//! The clean-up at work: beside the reconcile loop, one look for all changes since the last. What is cleaned is the
//! [`Place`]: the kernel's connection tracking, or the sockets that eBPF mode has translated.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use seaway_kernel::{Error, Netlink};
use seaway_model::{Change, Desired};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::frontends::{Due, Frontends};
use super::stale::NodeAddresses;
use crate::task::blocking;

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

/// Where UDP clients stay bound to endpoints.
pub trait Place: Send + Sync + 'static {
    /// Whether node ports are served at loopback addresses, too.
    fn has_loopback(&self) -> bool;

    /// Frees the clients that `ties` says are bound to the wrong endpoint. Blocks.
    ///
    /// # Errors
    ///
    /// If some may still be bound; then it is called again.
    fn clean(&self, ties: &Ties<'_>) -> anyhow::Result<()>;

    /// A call of [`clean`](Self::clean) has failed, and its clients stay cut off.
    fn failed(&self) {}
}

/// Two places one after the other: in iptables mode there may be sockets that eBPF mode has connected.
#[derive(Clone)]
pub struct Both(pub Arc<dyn Place>, pub Arc<dyn Place>);

impl Place for Both {
    fn has_loopback(&self) -> bool {
        self.0.has_loopback() && self.1.has_loopback()
    }

    fn clean(&self, ties: &Ties<'_>) -> anyhow::Result<()> {
        let first = self.0.clean(ties);
        self.1.clean(ties)?;
        first
    }

    fn failed(&self) {
        self.0.failed();
    }
}

/// What a [`Place`] is asked to look at.
#[derive(Debug)]
pub struct Ties<'a> {
    frontends: &'a Mutex<Frontends>,
    due: &'a Due,
    node: &'a NodeAddresses,
}

impl Ties<'_> {
    /// Gives the frontends as they are now to a question, and the addresses of the node.
    pub fn ask<T>(&self, question: impl FnOnce(&Frontends, &NodeAddresses) -> T) -> T {
        question(&lock(self.frontends), self.node)
    }

    /// The frontends that have changed.
    pub fn due(&self) -> &Due {
        self.due
    }
}

/// Frees clients of stale endpoints for as long as it lives.
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
}

impl Cleaner {
    /// Starts it for the network namespace of the calling thread, which must be that of the tokio runtime.
    pub fn start(settings: Settings, place: Arc<dyn Place>) -> Self {
        let shared = Arc::new(Shared {
            frontends: Mutex::default(),
            wake: Notify::new(),
            settings,
        });
        let task = tokio::spawn(follow(shared.clone(), place));
        Self { shared, task }
    }

    /// Says that the rules for `change` are in force. Waits for nothing; costs the UDP ports of the Services that
    /// changed.
    pub fn programmed(&self, desired: &Desired, change: &Change) {
        lock(&self.shared.frontends).update(desired, change);
        self.shared.wake.notify_one();
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(shared: Arc<Shared>, place: Arc<dyn Place>) {
    let mut failures = 0_u32;
    loop {
        let due = lock(&shared.frontends).take_due();
        if due == Due::Nothing {
            shared.wake.notified().await;
            continue;
        }
        let started = Instant::now();
        let pause = match look(&shared, &place, &due).await {
            Ok(()) => {
                lock(&shared.frontends).looked_at(&due);
                failures = 0;
                (started.elapsed() * IDLE_PER_WORK).min(IDLE_MAX)
            }
            Err(error) => {
                lock(&shared.frontends).put_back(due);
                place.failed();
                let pause = RETRY_FIRST
                    .saturating_mul(1 << failures.min(10))
                    .min(RETRY_MAX);
                failures += 1;
                let retry_in_ms = pause.as_millis();
                tracing::warn!(
                    retry_in_ms,
                    "cannot free clients of stale UDP endpoints, which stay cut off: {error:#}"
                );
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// One look at what is due.
async fn look(shared: &Arc<Shared>, place: &Arc<dyn Place>, due: &Due) -> anyhow::Result<()> {
    let node = if lock(&shared.frontends).has_node_ports() {
        let served = shared.settings.node_port_addresses.as_deref();
        let node = NodeAddresses::new(own_addresses().await?, served);
        match place.has_loopback() && served.is_none() {
            true => node.and_loopback(),
            false => node,
        }
    } else {
        NodeAddresses::default()
    };
    let (shared, place, due) = (shared.clone(), place.clone(), due.clone());
    blocking(move || {
        place.clean(&Ties {
            frontends: &shared.frontends,
            due: &due,
            node: &node,
        })
    })
    .await
}

async fn own_addresses() -> Result<impl Iterator<Item = IpAddr>, Error> {
    let addresses = Netlink::new()?.addresses(None).await?;
    Ok(addresses.into_iter().map(|address| address.network.ip()))
}

fn lock(frontends: &Mutex<Frontends>) -> MutexGuard<'_, Frontends> {
    // Every change to it is complete or did not begin.
    frontends.lock().unwrap_or_else(PoisonError::into_inner)
}
