//! Pods whose sockets are left untranslated: those with a sidecar, which has to see the addresses that programs meant, and
//! those whose label asks for it.
//!
//! A sidecar (Istio, Linkerd) puts rules into the network namespace of its pod that redirect what programs send to it. A
//! socket that was translated at `connect()` has no Service address left that the sidecar could know. So namespaces
//! are looked at from the side: whether nat rules came there, by the generation of nf_tables and the sizes of legacy
//! tables, and only then what these say. Packets of such a pod are served at its link like those of any.
//!
//! There is no event for rules of another namespace, so that a young namespace is looked at often and an old one seldom.

mod redirect;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use seaway_ebpf_abi::maps;
use seaway_ebpf_abi::socket::{UNTRANSLATED_BY_LABEL, UNTRANSLATED_BY_REDIRECT};
use seaway_kernel::netns::{Place, places};
use seaway_kernel::{Error, NetNs};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::config::pin_dir;
use super::error::EbpfError;
use super::spaces::addresses;
use super::table::Table;
use crate::task::blocking;
use redirect::Rules;

#[cfg(test)]
mod tests;

/// How often namespaces are looked for, and how often a new one is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often an old one is looked at.
const SELDOM: Duration = Duration::from_secs(30);

/// Addresses of Pods that ask to be left alone.
pub type Labelled = watch::Receiver<BTreeSet<IpAddr>>;

/// Follows the network namespaces of the machine for as long as it lives. What it has found stays in force.
#[derive(Debug)]
pub struct Aside {
    task: JoinHandle<()>,
}

impl Aside {
    /// Starts it for a data plane that pins its maps below `bpffs_root`; while there are none it has nothing to write
    /// to. The namespace of the calling thread is the node's, whose sockets always are translated. `labelled`: addresses
    /// of the Pods whose label asks to be left alone, as they come and go.
    ///
    /// # Errors
    ///
    /// If that namespace cannot be opened.
    pub fn start(bpffs_root: &Path, labelled: Labelled) -> Result<Self, EbpfError> {
        let task = tokio::spawn(follow(NetNs::current()?, pin_dir(bpffs_root), labelled));
        Ok(Self { task })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of a namespace.
#[derive(Debug)]
struct Known {
    cookie: u64,
    /// When it was found.
    since: Instant,
    next: Instant,
    /// What the answer below was read from.
    rules: Rules,
    redirects: bool,
    addresses: BTreeSet<IpAddr>,
}

async fn follow(own: NetNs, pin_dir: PathBuf, mut labelled: Labelled) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: BTreeMap<Place, Known> = BTreeMap::new();
    loop {
        let of_labels = async {
            match labelled.changed().await {
                Ok(()) => {}
                // Nobody follows Pods (any more).
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tick.tick() => {}
            () = of_labels => {
                // Whose address it is may have changed since the last look.
                let now = Instant::now();
                known.values_mut().for_each(|known| known.next = now);
            }
        }
        let node = own.clone();
        let scan = blocking(move || {
            let changed = scan(&mut known, &node, Instant::now());
            (known, changed)
        });
        let changed;
        (known, changed) = scan.await;
        // First what needs no look at rules; then namespace by namespace, since one may have a great many rules.
        store(&pin_dir, &known, &labelled);
        for (place, netns, rules) in changed {
            match redirect::read(&netns, &rules).await {
                Ok(redirects) => learn(&mut known, &place, rules, redirects),
                Err(error) => tracing::warn!(
                    "cannot tell whether a sidecar redirects the connections in {}; its sockets are translated: {error}",
                    place.path.display()
                ),
            }
            store(&pin_dir, &known, &labelled);
        }
    }
}

fn store(pin_dir: &Path, known: &BTreeMap<Place, Known>, labelled: &Labelled) {
    let wanted = wanted(known, &labelled.borrow());
    if let Err(error) = write(pin_dir, &wanted) {
        tracing::warn!(%error, "cannot write which sockets are left untranslated");
    }
}

fn learn(known: &mut BTreeMap<Place, Known>, place: &Place, rules: Rules, redirects: bool) {
    let Some(entry) = known.get_mut(place) else {
        return;
    };
    if entry.redirects != redirects {
        let namespace = place.path.display();
        if redirects {
            tracing::info!(%namespace, "a sidecar redirects connections: sockets are left untranslated");
        } else {
            tracing::info!(%namespace, "nothing redirects connections any more");
        }
    }
    entry.redirects = redirects;
    entry.rules = rules;
}

/// Looks at the namespaces that are due. Returns those whose nat rules are other ones than those known. Blocks.
fn scan(
    known: &mut BTreeMap<Place, Known>,
    node: &NetNs,
    now: Instant,
) -> Vec<(Place, NetNs, Rules)> {
    let here: BTreeSet<Place> = places()
        .filter(|place| !node.is_at(place).unwrap_or(false))
        .collect();
    known.retain(|place, _| here.contains(place));
    let mut changed = Vec::new();
    for place in here {
        if known.get(&place).is_some_and(|known| known.next > now) {
            continue;
        }
        // One that went meanwhile is not here the next time.
        let Ok((netns, cookie, seen, addresses)) = look(&place) else {
            continue;
        };
        let entry = known.entry(place.clone()).or_insert_with(|| Known {
            cookie,
            since: now,
            next: now,
            rules: Rules::default(),
            redirects: false,
            addresses: BTreeSet::new(),
        });
        if entry.cookie != cookie {
            // Another namespace at the same place.
            entry.since = now;
            entry.rules = Rules::default();
            entry.redirects = false;
        }
        entry.cookie = cookie;
        entry.addresses = addresses;
        entry.next = now + pause(now - entry.since);
        if entry.rules != seen {
            changed.push((entry.since, place, netns, seen));
        }
    }
    // The youngest first: its programs are about to start.
    changed.sort_by_key(|(since, ..)| Reverse(*since));
    let sorted = changed.into_iter();
    sorted
        .map(|(_, place, netns, rules)| (place, netns, rules))
        .collect()
}

fn look(place: &Place) -> Result<(NetNs, u64, Rules, BTreeSet<IpAddr>), Error> {
    let netns = NetNs::open(&place.path)?;
    let cookie = netns.cookie()?;
    let (rules, addresses) = {
        let _inside = netns.enter()?;
        (Rules::here(), addresses())
    };
    Ok((netns, cookie, rules, addresses))
}

/// How long until the next look at a namespace of this age: a sidecar comes with its pod.
fn pause(age: Duration) -> Duration {
    (age / 4).clamp(TICK, SELDOM)
}

/// What belongs into the map.
fn wanted(known: &BTreeMap<Place, Known>, labelled: &BTreeSet<IpAddr>) -> BTreeMap<u64, u32> {
    let why = |known: &Known| {
        let by_redirect = known.redirects;
        let by_label = !known.addresses.is_disjoint(labelled);
        u32::from(by_redirect) * UNTRANSLATED_BY_REDIRECT
            + u32::from(by_label) * UNTRANSLATED_BY_LABEL
    };
    let all = known.values().map(|known| (known.cookie, why(known)));
    all.filter(|(_, why)| *why != 0).collect()
}

/// Brings the map in step; nothing is pinned while another mode serves.
fn write(pin_dir: &Path, wanted: &BTreeMap<u64, u32>) -> Result<(), EbpfError> {
    let table: Option<Table<u64, u32>> = Table::open(pin_dir, maps::UNTRANSLATED)?;
    let Some(table) = table else {
        return Ok(());
    };
    let actual: BTreeMap<u64, u32> = table.entries()?.into_iter().collect();
    for (cookie, why) in wanted {
        if actual.get(cookie) != Some(why) {
            table.set(cookie, why)?;
        }
    }
    for cookie in actual.keys().filter(|cookie| !wanted.contains_key(cookie)) {
        table.delete(cookie)?;
    }
    Ok(())
}
