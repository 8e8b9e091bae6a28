//! How full the maps are, and what those have pushed out that make room by themselves: as [`counted`](super::counted) tells,
//! a lower bound of which the largest ever seen stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use seaway_ebpf_abi::FrontendKey;

use super::counted::{Balance, Ledger};
use super::error::EbpfError;
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
    /// Of a map that makes room by itself.
    pub balance: Option<Balance>,
}

impl MapUse {
    /// How many entries it has pushed out to make room, at least; `None` for a map that never does, or that refuses what does
    /// not fit.
    pub fn evictions(&self) -> Option<u64> {
        self.balance.map(|balance| match balance {
            Balance::Evicted(count) => count,
            Balance::Unexplained(_) => 0,
        })
    }
}

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// How full the maps were.
    pub(super) maps: Vec<MapUse>,
    /// The most that each was seen to have pushed out.
    evictions: BTreeMap<&'static str, u64>,
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
        let Some(tables) = Tables::open(dir)? else {
            return collect();
        };
        let mut found = (0, 0);
        let flows = tables.flows.usage_by(|| {
            found = collect()?;
            Ok(found)
        })?;
        self.warn(&flows);
        let mut maps = tables.usage(flows, Some(&services))?;
        self.settle(dir, &mut maps)?;
        self.maps = maps;
        if let Some(is_known) = is_known {
            self.prune(dir, is_known)?;
        }
        Ok(found)
    }

    /// Takes in what follows for what the maps have pushed out: never less than was known, and nothing of what has come in from
    /// elsewhere.
    fn settle(&mut self, dir: &Path, maps: &mut [MapUse]) -> Result<(), EbpfError> {
        for map in maps {
            let (Some(balance), Some(ledger)) = (&mut map.balance, Ledger::of(map.name)) else {
                continue;
            };
            let most = self.evictions.entry(map.name).or_default();
            match *balance {
                Balance::Evicted(count) => *most = count.max(*most),
                Balance::Unexplained(count) => {
                    if let Some(counters) = OwnCounters::open(dir)? {
                        counters.add(ledger.adopted, count)?;
                    }
                }
            }
            *balance = Balance::Evicted(*most);
        }
        Ok(())
    }

    /// Whether counts have been found of frontends that nobody has, which go with the next look.
    pub(super) fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Says in time that the flow table is filling. The other tables of programs are full in the course of time: what is pushed
    /// out there is what was not used for longest, mostly closed sockets.
    fn warn(&mut self, flows: &MapUse) {
        let (entries, max_entries) = (flows.entries, flows.max_entries);
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
        flows: MapUse,
        services: Option<&Room>,
    ) -> Result<Vec<MapUse>, EbpfError> {
        let known = |of: fn(&Room) -> usize| services.map(of);
        let mut uses = vec![
            self.frontends
                .usage_or_count(known(|room| room.frontends))?,
            self.backends.usage_or_count(known(|room| room.backends))?,
            self.maglev.usage_or_count(known(|room| room.maglev))?,
            self.ranges.usage_or_count(None)?,
            self.affinity.usage()?,
            self.node_addrs.usage_or_count(None)?,
            flows,
            self.sockets_tcp.usage()?,
            self.sockets_udp.usage()?,
            self.steady.usage()?,
        ];
        if let Some(detours) = &self.detours {
            uses.push(detours.usage()?);
        }
        if let Some(shortcuts) = &self.shortcuts {
            // An array has them all, always; nobody would want to read them.
            uses.push(shortcuts.usage(shortcuts.max_entries() as usize));
        }
        Ok(uses)
    }
}

#[cfg(test)]
mod tests {
    use seaway_ebpf_abi::maps;

    use super::*;

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
    #[test]
    fn what_was_once_pushed_out_stays_so() {
        let mut census = Census::default();
        let map = |name, balance| MapUse {
            name,
            entries: 1,
            max_entries: 2,
            memory_bytes: 0,
            balance,
        };
        for (found, expected) in [
            (Balance::Evicted(3), 3),
            (Balance::Evicted(2), 3),
            (Balance::Unexplained(9), 3),
            (Balance::Evicted(7), 7),
        ] {
            let mut maps = [
                map(maps::AFFINITY, Some(found)),
                map(maps::STEADY, Some(Balance::Evicted(1))),
                map(maps::BACKENDS, None),
            ];
            census.settle(Path::new("/nonexistent"), &mut maps).unwrap();
            let evictions = maps.map(|map| map.evictions());
            assert_eq!(evictions, [Some(expected), Some(1), None], "{found:?}");
        }
    }
}
