//! Listening to the programs, and reading their flow table, from another process than the daemon.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Map, MapData, MapError, RingBuf};
use nix::fcntl::{Flock, FlockArg};
use seaway_ebpf_abi::event::Listener;
use seaway_ebpf_abi::{Event, FlowKey, FlowValue, LAYOUT_VERSION, Verdict, maps};

use super::error::EbpfError;
use super::observe::counters;
use super::sys;
use super::table::Table;
use super::tables::Tables;

/// How long the programs go on telling after the listener has last been heard of, in nanoseconds.
const LEASE: u64 = 5_000_000_000;

/// The maps that are pinned below a root, whoever keeps them.
#[derive(Debug)]
pub struct Pinned {
    dir: PathBuf,
}

impl Pinned {
    /// What this build's layout has pinned; `None` if nothing is, as in mode iptables.
    pub fn find(root: &Path) -> Option<Self> {
        let dir = root.join(format!("v{LAYOUT_VERSION}"));
        dir.join(maps::FLOWS).exists().then_some(Self { dir })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The flow table as it is now, and `CLOCK_MONOTONIC` in nanoseconds.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn flows(&self) -> Result<(Vec<(FlowKey, FlowValue)>, u64), EbpfError> {
        let flows = Table::open(&self.dir, maps::FLOWS)?;
        let entries = flows.map_or(Ok(Vec::new()), |flows| flows.entries())?;
        Ok((entries, sys::monotonic_ns()))
    }
}

/// The one process that the programs tell of flows. They stop when this is dropped, or soon after it was killed.
pub struct Listening {
    dir: PathBuf,
    ring: RingBuf<MapData>,
    listener: Table<u32, Listener>,
    wants: Listener,
    /// Released by the kernel, however this process ends.
    _lock: Flock<File>,
    /// Records of before are somebody else's.
    since: u64,
    lost: u64,
    /// The cookie of the node's network namespace.
    node_netns: u64,
}

impl Listening {
    /// Asks the programs to tell of what is in `wants` (`WANT_*` bits), of one flow in `sample`.
    ///
    /// # Errors
    ///
    /// If somebody else listens, or if a map cannot be used.
    pub fn start(pinned: &Pinned, wants: u32, sample: u32) -> Result<Self, EbpfError> {
        let dir = pinned.dir.clone();
        let open = || File::open(&dir);
        let file = open().map_err(|error| EbpfError::file("open", &dir, error))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    nix::errno::Errno::EWOULDBLOCK => EbpfError::Listened,
                    other => EbpfError::file("lock", &dir, other.into()),
                },
            )?;
        let listener = Table::open(&dir, maps::LISTENER)?;
        let (Some(listener), Some(tables)) = (listener, Tables::open(&dir)?) else {
            return Err(EbpfError::file(
                "open",
                &dir.join(maps::LISTENER),
                io::Error::from(io::ErrorKind::NotFound),
            ));
        };
        let mut listening = Self {
            ring: ring(&dir)?,
            listener,
            wants: Listener {
                until: 0,
                sample,
                wants,
            },
            _lock: lock,
            since: sys::monotonic_ns(),
            lost: lost(&dir)?,
            node_netns: tables.read_config()?.netns_cookie,
            dir,
        };
        listening.renew()?;
        Ok(listening)
    }

    /// The cookie of the node's network namespace.
    pub fn node_netns(&self) -> u64 {
        self.node_netns
    }

    /// `CLOCK_MONOTONIC` in nanoseconds, the clock of events.
    pub fn now() -> u64 {
        sys::monotonic_ns()
    }

    /// Goes on listening; to be called every second or so. Returns how many events did not fit into the ring buffer
    /// since the last time; `None` if the maps are no longer there.
    ///
    /// # Errors
    ///
    /// If a map cannot be used.
    pub fn renew(&mut self) -> Result<Option<u64>, EbpfError> {
        if !self.dir.join(maps::LISTENER).exists() {
            return Ok(None);
        }
        self.wants.until = sys::monotonic_ns().saturating_add(LEASE);
        self.listener.set(&0, &self.wants)?;
        let lost = lost(&self.dir)?;
        let more = lost.saturating_sub(self.lost);
        self.lost = lost;
        Ok(Some(more))
    }

    /// The events that have come, at least one. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Event> {
        loop {
            let mut events = Vec::new();
            while events.len() < PORTION
                && let Some(record) = self.ring.next()
            {
                let event = Event::read(&record);
                events.extend(event.filter(|event| event.at >= self.since));
            }
            if !events.is_empty() {
                return events;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// How long to wait before looking again. The programs wake nobody, which would cost them more than the rest.
const PAUSE: Duration = Duration::from_millis(50);

/// Events handed over at once, so that whoever prints them gets to renew the lease.
const PORTION: usize = 1024;

impl Drop for Listening {
    fn drop(&mut self) {
        // Else the lease runs out by itself.
        let _ = self.listener.set(&0, &Listener::default());
    }
}

fn lost(dir: &Path) -> Result<u64, EbpfError> {
    let counters = counters(dir)?;
    let found = counters.iter().find(|(v, _)| *v == Verdict::EventLost);
    Ok(found.map_or(0, |(_, count)| *count))
}

fn ring(dir: &Path) -> Result<RingBuf<MapData>, EbpfError> {
    let path = dir.join(maps::EVENTS);
    let failed = |error: MapError| EbpfError::load(path.display().to_string(), &error);
    let map = MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .map_err(failed)?;
    RingBuf::try_from(map).map_err(failed)
}
