//! How full the maps are, and what the flow table has pushed out.
//!
//! An LRU map does not tell when it reuses an entry. But programs count what they add and remove, user space what it
//! collects and brings in, and a listing says how many are left: whatever is missing then was pushed out. Entries come and go
//! during the listing, so that the difference is a lower bound, exact once the table is at rest; the largest ever
//! seen stands.

use std::collections::BTreeSet;
use std::path::Path;

use seaway_ebpf_abi::{FrontendKey, Verdict, maps};

use super::error::EbpfError;
use super::observe::counters;
use super::room::Room;
use super::tables::Tables;
use super::tallies::{OwnCounters, Tallies};

/// A map and how full it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapUse {
    pub name: &'static str,
    pub entries: u64,
    pub max_entries: u64,
    /// In the kernel, as it accounts for it.
    pub memory_bytes: u64,
}

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// How full the maps were.
    pub(super) maps: Vec<MapUse>,
    pub(super) evictions: u64,
    /// Counts of frontends that nobody had the last time.
    unknown: BTreeSet<FrontendKey>,
    /// The flow table was filling.
    filling: bool,
}

/// Whether a table is filling: from three quarters on, until it is half empty.
fn is_filling(before: bool, entries: u64, max_entries: u64) -> bool {
    let quarters = if before { 2 } else { 3 };
    entries * 4 > max_entries * quarters
}

/// What has been counted of the entries of the flow table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turnover {
    added: u64,
    removed: u64,
}

impl Turnover {
    fn of(counters: &[(Verdict, u64)]) -> Self {
        let get = |verdict| {
            let found = counters.iter().find(|(v, _)| *v == verdict);
            found.map_or(0, |(_, count)| *count)
        };
        Self {
            added: get(Verdict::EntryAdded) + get(Verdict::EntryAdopted),
            removed: get(Verdict::EntryRemoved) + get(Verdict::EntryCollected),
        }
    }
}

/// What follows from a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Balance {
    /// So many were pushed out, at least.
    Evicted(u64),
    /// So many have come in from elsewhere, as from another layout: nobody has counted them.
    Unexplained(u64),
}

/// Compares what was counted before and after a listing with what it found.
fn balance(before: Turnover, after: Turnover, listed: u64) -> Balance {
    let most = after.added.saturating_sub(before.removed);
    if listed > most {
        return Balance::Unexplained(listed - most);
    }
    Balance::Evicted(
        before
            .added
            .saturating_sub(after.removed)
            .saturating_sub(listed),
    )
}

impl Census {
    /// Looks at the flows. `collect` lists them and deletes those that are over, and says how many there were and how many
    /// went. `services` is what the tables of Services hold: the work does not grow with these. If some frontends are
    /// gone since the last look, `is_known` says which belong to a Service.
    pub(super) fn take(
        &mut self,
        dir: &Path,
        services: Room,
        collect: impl FnOnce() -> Result<(usize, usize), EbpfError>,
        is_known: Option<impl Fn(&FrontendKey) -> bool>,
    ) -> Result<(usize, usize), EbpfError> {
        let before = Turnover::of(&counters(dir)?);
        let (listed, deleted) = collect()?;
        let mut after = Turnover::of(&counters(dir)?);
        // What went in this look was listed before.
        after.removed = after.removed.saturating_sub(deleted as u64);
        match balance(before, after, listed as u64) {
            Balance::Evicted(count) => self.evictions = self.evictions.max(count),
            Balance::Unexplained(count) => {
                if let Some(counters) = OwnCounters::open(dir)? {
                    counters.add(Verdict::EntryAdopted, count)?;
                }
            }
        }
        if let Some(is_known) = is_known {
            self.prune(dir, is_known)?;
        }
        let left = (listed - deleted.min(listed)) as u64;
        if let Some(tables) = Tables::open(dir)? {
            self.maps = tables.usage(left, Some(&services))?;
            self.warn(left, u64::from(tables.flows.max_entries()));
        }
        Ok((listed, deleted))
    }

    /// Whether counts have been found of frontends that nobody has, which go with the next look.
    pub(super) fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Says in time that the flow table is filling. The other tables of programs are full in the course of time: what is pushed
    /// out there is what was not used for longest, mostly closed sockets.
    fn warn(&mut self, entries: u64, max_entries: u64) {
        let filling = is_filling(self.filling, entries, max_entries);
        if filling && !self.filling {
            tracing::warn!(
                entries,
                max_entries,
                "the flow table is filling: once it is full, the flows that were silent for longest are forgotten; restart with a larger \
                 --max-flows, which takes all flows over"
            );
        }
        self.filling = filling;
    }

    /// Forgets counts of frontends that are gone. One that has just come may be counted before it is known: hence
    /// twice.
    fn prune(
        &mut self,
        dir: &Path,
        is_known: impl Fn(&FrontendKey) -> bool,
    ) -> Result<(), EbpfError> {
        let Some(tallies) = Tallies::open(dir)? else {
            return Ok(());
        };
        let mut unknown = BTreeSet::new();
        tallies.each(|portion| {
            let keys = portion.iter().map(|(key, _)| *key);
            unknown.extend(keys.filter(|key| !is_known(&FrontendKey { pad: 0, ..*key })));
        })?;
        for gone in unknown.intersection(&self.unknown) {
            tallies.delete(gone)?;
        }
        self.unknown = unknown;
        Ok(())
    }
}

impl Tables {
    /// How full each is. The flows are counted already, and `services` is what the tables of Services are known to hold.
    pub(super) fn usage(
        &self,
        flows: u64,
        services: Option<&Room>,
    ) -> Result<Vec<MapUse>, EbpfError> {
        let mut uses = vec![
            self.frontends.usage(services.map(|room| room.frontends))?,
            self.backends.usage(services.map(|room| room.backends))?,
            self.maglev.usage(services.map(|room| room.maglev))?,
            self.ranges.usage(None)?,
            self.affinity.usage(None)?,
            self.node_addrs.usage(None)?,
            MapUse {
                name: maps::FLOWS,
                entries: flows,
                max_entries: u64::from(self.flows.max_entries()),
                memory_bytes: self.flows.memory(),
            },
            self.sockets_tcp.usage(None)?,
            self.sockets_udp.usage(None)?,
            self.steady.usage(None)?,
        ];
        if let Some(shortcuts) = &self.shortcuts {
            // An array has them all, always; nobody would want to read them.
            uses.push(MapUse {
                name: maps::SHORTCUTS,
                entries: u64::from(shortcuts.max_entries()),
                max_entries: u64::from(shortcuts.max_entries()),
                memory_bytes: shortcuts.memory(),
            });
        }
        Ok(uses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(added: u64, removed: u64) -> Turnover {
        Turnover { added, removed }
    }

    #[test]
    fn what_is_missing_was_pushed_out() {
        for (before, after, listed, expected) in [
            (at(0, 0), at(0, 0), 0, Balance::Evicted(0)),
            (at(10, 2), at(10, 2), 8, Balance::Evicted(0)),
            (at(10, 2), at(10, 2), 5, Balance::Evicted(3)),
            // Four came and went meanwhile: any of them may have been seen.
            (at(10, 2), at(14, 6), 8, Balance::Evicted(0)),
            (at(10, 2), at(14, 6), 12, Balance::Evicted(0)),
            (at(100, 2), at(104, 6), 12, Balance::Evicted(82)),
            // More than were ever added: a copy from elsewhere.
            (at(10, 2), at(14, 6), 13, Balance::Unexplained(1)),
            (at(0, 0), at(0, 0), 7, Balance::Unexplained(7)),
        ] {
            assert_eq!(balance(before, after, listed), expected, "{before:?}");
        }
    }

    #[test]
    fn a_table_is_said_to_fill_in_time_and_once() {
        let mut filling = false;
        for (entries, expected) in [
            (0, false),
            (75, false),
            (76, true),
            (99, true),
            (51, true),
            (50, false),
            (75, false),
        ] {
            filling = is_filling(filling, entries, 100);
            assert_eq!(filling, expected, "{entries}");
        }
    }

    proptest::proptest! {
        /// A table in which entries are added, removed and pushed out while it is listed: never more is claimed than was
        /// pushed out, and at rest exactly that.
        #[test]
        fn never_more_than_were_pushed_out(
            steps in proptest::collection::vec((0_u8..3, 0_usize..64), 0..200),
            listing in 0_usize..200,
        ) {
            let mut entries: Vec<usize> = Vec::new();
            let (mut turnover, mut evicted, mut next) = (at(0, 0), 0, 0);
            let mut before = at(0, 0);
            let mut listed: BTreeSet<usize> = BTreeSet::new();
            for (i, (step, pick)) in steps.iter().enumerate() {
                if i == listing {
                    before = turnover;
                    listed.clear();
                }
                if i >= listing {
                    // The listing has come to one bucket.
                    listed.extend(entries.iter().filter(|e| *e % 8 == i % 8));
                }
                match step {
                    0 => {
                        entries.push(next);
                        next += 1;
                        turnover.added += 1;
                    }
                    1 if !entries.is_empty() => {
                        entries.swap_remove(pick % entries.len());
                        turnover.removed += 1;
                    }
                    2 if !entries.is_empty() => {
                        entries.swap_remove(pick % entries.len());
                        evicted += 1;
                    }
                    _ => {}
                }
            }
            if listing + 8 < steps.len() {
                match balance(before, turnover, listed.len() as u64) {
                    Balance::Evicted(claimed) => proptest::prop_assert!(claimed <= evicted),
                    Balance::Unexplained(n) => proptest::prop_assert!(false, "{n} unexplained"),
                }
            }
            let rest = balance(turnover, turnover, entries.len() as u64);
            proptest::prop_assert_eq!(rest, Balance::Evicted(evicted));
        }
    }
}
