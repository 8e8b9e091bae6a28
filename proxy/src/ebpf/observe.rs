//! What the programs have counted, by Service and by map, for the metrics. The data plane shares what it alone knows (whose a
//! frontend is); the rest is read from the maps when somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use seaway_ebpf_abi::counters::{COUNTERS_LEN, Tally};
use seaway_ebpf_abi::{FrontendKey, Verdict};
use seaway_model::ObjectKey;

use super::census::{Census, MapUse};
use super::error::EbpfError;
use super::image::{OwnerChanges, Owners};
use super::room::Room;
use super::table;
use super::tallies::Tallies;

/// How many Services have series of their own. Others are counted together, under no name.
pub const SERVICES_NAMED: usize = 4096;

/// A window on the data plane that runs in this process, if one does; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Observed(Arc<Mutex<Weak<Shared>>>);

/// What a data plane shows.
#[derive(Debug)]
pub(super) struct Shared {
    /// Where the maps are pinned.
    dir: PathBuf,
    owners: RwLock<Owners>,
    /// Some frontend may have counts and no owner: at start, and since one has gone.
    gone: AtomicBool,
    census: Mutex<Census>,
    /// Taken after `owners`, if both are.
    roster: Mutex<Roster>,
    /// How many links are left alone that programs would belong to.
    links_left: AtomicUsize,
}

/// All that the metrics say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By verdict, summed over CPUs since the maps were made.
    pub verdicts: Vec<(Verdict, u64)>,
    /// By Service (`None`: those without series of their own), and by what is counted.
    pub services: BTreeMap<(Option<ObjectKey>, Tally), u64>,
    /// As they were when flows were last looked through; nothing before that.
    pub maps: Vec<MapUse>,
    /// Links that are left to the stack, since their packets have a header that programs do not know.
    pub links_left: usize,
}

impl Observed {
    /// What there is to say; `None` if no eBPF data plane runs here, or if its maps are not there yet.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, EbpfError> {
        let shared = lock(&self.0).upgrade();
        shared.map_or(Ok(None), |shared| shared.snapshot())
    }

    /// From now on it shows that data plane.
    pub(super) fn show(&self, shared: &Arc<Shared>) {
        *lock(&self.0) = Arc::downgrade(shared);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            owners: RwLock::default(),
            gone: AtomicBool::new(true),
            census: Mutex::default(),
            roster: Mutex::default(),
            links_left: AtomicUsize::default(),
        }
    }

    /// Whose the frontends are.
    pub(super) fn owners(&self) -> RwLockReadGuard<'_, Owners> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a plan decided.
    pub(super) fn update(&self, changes: OwnerChanges) {
        if changes.anew || changes.of.values().any(Option::is_none) {
            self.gone.store(true, Ordering::Relaxed);
        }
        let anew = changes.anew;
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        let left = owners.update(changes);
        let mut roster = lock(&self.roster);
        match anew {
            true => roster.retain(|key| owners.has(key)),
            false => left.iter().for_each(|key| roster.remove(key)),
        }
    }

    /// So many links are left to the stack.
    pub(super) fn leave_links(&self, number: usize) {
        self.links_left.store(number, Ordering::Relaxed);
    }

    /// Nothing of ours is in the kernel any more.
    pub(super) fn forget(&self) {
        *self.owners.write().unwrap_or_else(PoisonError::into_inner) = Owners::default();
        *lock(&self.roster) = Roster::default();
        *lock(&self.census) = Census::default();
    }

    /// Looks through the flows. Takes its time: not for the thread that serves changes.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn look_through(
        &self,
        services: Room,
        collect: impl FnOnce() -> Result<(usize, usize), EbpfError>,
    ) -> Result<(usize, usize), EbpfError> {
        let is_known = |key: &FrontendKey| self.owners().of.contains_key(key);
        let mut census = lock(&self.census);
        let gone = self.gone.swap(false, Ordering::Relaxed) || census.has_unknown();
        let taken = census.take(&self.dir, services, collect, gone.then_some(is_known));
        if taken.is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
        taken
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, EbpfError> {
        let Some(counts) = table::counters(&self.dir, COUNTERS_LEN)? else {
            return Ok(None);
        };
        let mut services = Sums::new();
        if let Some(tallies) = Tallies::open(&self.dir)? {
            // A change of Services waits for a portion at most.
            tallies.each(|portion| {
                let owners = self.owners();
                lock(&self.roster).sum(portion, &owners, &mut services);
            })?;
        }
        let census = lock(&self.census);
        Ok(Some(Snapshot {
            verdicts: Verdict::ALL.iter().copied().zip(counts).collect(),
            services,
            maps: census.maps.clone(),
            links_left: self.links_left.load(Ordering::Relaxed),
        }))
    }
}

/// Counts by Service (`None`: those without series of their own), and by what is counted.
type Sums = BTreeMap<(Option<ObjectKey>, Tally), u64>;

/// Which Services have series of their own: the first that had traffic, until they are gone. So no series ever counts
/// back, and their number is bounded whatever the cluster does.
#[derive(Debug, Default)]
struct Roster {
    /// Those that had traffic, and whether they have series of their own. Asked for each count.
    known: HashMap<ObjectKey, bool>,
    named: usize,
}

impl Roster {
    /// Adds a portion of the counts to the sums.
    fn sum(&mut self, tallies: &[(FrontendKey, u64)], owners: &Owners, sums: &mut Sums) {
        for (key, count) in tallies {
            let frontend = FrontendKey { pad: 0, ..*key };
            // Of a Service that is just gone, or not known yet.
            let Some(owner) = owners.of.get(&frontend) else {
                continue;
            };
            let name = self.admits(owner).then(|| owner.clone());
            *sums.entry((name, Tally::of_pad(key.pad))).or_insert(0) += count;
        }
    }

    fn admits(&mut self, key: &ObjectKey) -> bool {
        if let Some(named) = self.known.get(key) {
            return *named;
        }
        let named = self.named < SERVICES_NAMED;
        self.named += usize::from(named);
        self.known.insert(key.clone(), named);
        named
    }

    /// A Service is gone.
    fn remove(&mut self, key: &ObjectKey) {
        if self.known.remove(key) == Some(true) {
            self.named -= 1;
        }
    }

    fn retain(&mut self, is_there: impl Fn(&ObjectKey) -> bool) {
        self.known.retain(|key, _| is_there(key));
        self.named = self.known.values().filter(|named| **named).count();
    }
}

/// The counters of a directory of pins, whoever runs; empty if nothing is loaded.
pub(super) fn counters(dir: &Path) -> Result<Vec<(Verdict, u64)>, EbpfError> {
    let counts = table::counters(dir, COUNTERS_LEN)?.unwrap_or_default();
    Ok(Verdict::ALL.iter().copied().zip(counts).collect())
}

#[cfg(test)]
mod tests;
