//! The maps that user space reads and writes, and the steps of a plan carried out on them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use seaway_ebpf_abi::maglev::MAGLEV_CHUNKS;
use seaway_ebpf_abi::{
    Addr, AffinityKey, AffinityValue, BackendKey, BackendValue, Config, FlowKey, FrontendKey,
    FrontendValue, MaglevChunk, MaglevKey, Plain, RangeKey, Shortcut, SocketKey, SocketValue,
    SteadyValue, maps,
};

use super::bpffs;
use super::config::MapSizes;
use super::counted::{self, Counted};
use super::error::EbpfError;
use super::flow_table::FlowTable;
use super::image::Image;
use super::maglev;
use super::plan::Op;
use super::room::{self, Room};
use super::table::Table;
use super::wanted::Range;
use crate::dataplane::Report;

/// Open maps.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) config: Table<u32, Config>,
    pub(super) frontends: Table<FrontendKey, FrontendValue>,
    pub(super) backends: Table<BackendKey, BackendValue>,
    pub(super) maglev: Table<MaglevKey, MaglevChunk>,
    pub(super) ranges: Table<RangeKey, u32>,
    pub(super) affinity: Counted<AffinityKey, AffinityValue>,
    pub(super) node_addrs: Table<Addr, u32>,
    /// Shared with the collector of old flows, which works on another thread.
    pub(super) flows: Arc<FlowTable>,
    /// A build before did without.
    pub(super) shortcuts: Option<Table<u32, Shortcut>>,
    pub(super) sockets_tcp: Counted<SocketKey, SocketValue>,
    pub(super) sockets_udp: Counted<SocketKey, SocketValue>,
    pub(super) steady: Counted<SocketKey, SteadyValue>,
    /// A build before did without.
    pub(super) detours: Option<Counted<FlowKey, u32>>,
}

impl Tables {
    /// Opens the maps pinned in a directory; `None` if not all of them are there, as before the first start.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, EbpfError> {
        let tables = (
            Table::open(dir, maps::CONFIG)?,
            Table::open(dir, maps::FRONTENDS)?,
            Table::open(dir, maps::BACKENDS)?,
            Table::open(dir, maps::MAGLEV)?,
            Table::open(dir, maps::RANGES)?,
            Counted::open(dir, &counted::AFFINITY)?,
            Table::open(dir, maps::NODE_ADDRS)?,
            FlowTable::open(dir)?,
            Table::open(dir, maps::SHORTCUTS)?,
            Counted::open(dir, &counted::SOCKETS_TCP)?,
            Counted::open(dir, &counted::SOCKETS_UDP)?,
            Counted::open(dir, &counted::STEADY)?,
            Counted::open(dir, &counted::DETOURS)?,
        );
        let (
            Some(config),
            Some(frontends),
            Some(backends),
            Some(maglev),
            Some(ranges),
            Some(affinity),
            Some(node_addrs),
            Some(flows),
            shortcuts,
            Some(sockets_tcp),
            Some(sockets_udp),
            Some(steady),
            detours,
        ) = tables
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            config,
            frontends,
            backends,
            maglev,
            ranges,
            affinity,
            node_addrs,
            flows: Arc::new(flows),
            shortcuts,
            sockets_tcp,
            sockets_udp,
            steady,
            detours,
        }))
    }

    /// The Service tables.
    pub(super) fn image(&self) -> Result<Image, EbpfError> {
        Ok(Image::from_entries(
            self.frontends.entries()?,
            self.backends.entries()?,
            self.maglev.entries_as(|chunk| chunk.made_of)?,
            self.ranges.entries()?,
        ))
    }

    /// Whether the Service tables are as the image says. Costs a look at each entry, and no memory.
    pub(super) fn hold(&self, image: &Image) -> Result<bool, EbpfError> {
        let slot = |key: &BackendKey| image.sets.get(&key.set)?.get(key.slot as usize);
        let networks = image.ranges.values().map(Vec::len).sum();
        let is_network = |key: &RangeKey| {
            let list = image.ranges.get(&key.ranges);
            list.is_some_and(|list| list.binary_search(&Range::of(key)).is_ok())
        };
        let chunks = image.tables.len() * MAGLEV_CHUNKS as usize;
        Ok(self.frontends.holds(image.frontends.len(), |key, value| {
            image.frontends.get(key) == Some(value)
        })? && self
            .backends
            .holds(image.slots, |key, value| slot(key) == Some(value))?
            && self.maglev.holds(chunks, |key, chunk| {
                image.tables.get(&key.set) == Some(&chunk.made_of)
            })?
            && self.ranges.holds(networks, |key, _| is_network(key))?)
    }

    /// Has the programs look up anew what they found before, after a change of what they look up.
    pub(super) fn new_epoch(&self) -> Result<(), EbpfError> {
        self.flows.new_epoch()
    }

    /// The configuration of the programs.
    pub(super) fn read_config(&self) -> Result<Config, EbpfError> {
        Ok(self.config.get(&0)?.unwrap_or_default())
    }

    /// Writes the configuration and the node's addresses, as far as they differ. Returns the number of writes.
    pub(super) fn write_node(
        &self,
        config: &Config,
        addresses: &BTreeMap<Addr, u32>,
    ) -> Result<usize, EbpfError> {
        let mut writes = 0;
        if self.read_config()? != *config {
            self.config.set(&0, config)?;
            writes += 1;
        }
        let there = self.node_addresses()?;
        for (address, bits) in addresses {
            if there.get(address) != Some(bits) {
                self.node_addrs.set(address, bits)?;
                writes += 1;
            }
        }
        for address in there.keys().filter(|known| !addresses.contains_key(known)) {
            self.node_addrs.delete(address)?;
            writes += 1;
        }
        if writes > 0 {
            self.new_epoch()?;
        }
        Ok(writes)
    }

    /// The node's addresses as the programs know them.
    pub(super) fn node_addresses(&self) -> Result<BTreeMap<Addr, u32>, EbpfError> {
        Ok(self.node_addrs.entries()?.into_iter().collect())
    }

    /// Carries out the steps of a plan in their order, in batches, and moves the image on with them.
    pub(super) fn execute(&self, ops: &[Op], image: &mut Image) -> Result<Report, EbpfError> {
        let mut report = Report::default();
        let mut slots = Vec::new();
        let mut ranges = Vec::new();
        let mut flips = Vec::new();
        let mut gone = Vec::new();
        let mut gone_slots = Vec::new();
        let mut gone_ranges = Vec::new();
        let mut gone_tables = Vec::new();
        let mut tables = 0;
        for op in ops {
            match op {
                Op::WriteSet { set, backends } => {
                    slots.extend((0..).zip(backends).map(|(slot, backend)| {
                        let key = BackendKey { set: *set, slot };
                        (key, *backend)
                    }));
                }
                Op::WriteRanges { ranges: id, list } => {
                    ranges.extend(list.iter().map(|range| (range.key(*id), 1)));
                }
                Op::WriteTable {
                    set,
                    backends,
                    seed,
                    ..
                } => {
                    // One at a time: a table is large, and so is the work of making it.
                    let table = maglev::entries(*set, backends, *seed);
                    self.maglev.set_all(&table)?;
                    tables += table.len();
                }
                Op::WriteFrontend { key, value } => flips.push((*key, *value)),
                Op::DeleteFrontend { key } => gone.push(*key),
                Op::DeleteSet { set, slots } => {
                    gone_slots.extend((0..*slots).map(|slot| BackendKey { set: *set, slot }));
                }
                Op::DeleteTable { set } => {
                    gone_tables
                        .extend((0..MAGLEV_CHUNKS).map(|chunk| MaglevKey { set: *set, chunk }));
                }
                Op::DeleteRanges { ranges: id, list } => {
                    gone_ranges.extend(list.iter().map(|range| range.key(*id)));
                }
            }
        }
        self.backends.set_all(&slots)?;
        self.ranges.set_all(&ranges)?;
        self.frontends.set_all(&flips)?;
        self.frontends.delete_all(&gone)?;
        if !ops.is_empty() {
            self.new_epoch()?;
        }
        self.maglev.delete_all(&gone_tables)?;
        self.backends.delete_all(&gone_slots)?;
        self.ranges.delete_all(&gone_ranges)?;
        for op in ops {
            image.take_in(op);
        }
        if ops.len() > image.frontends.len() {
            image.pack();
        }
        report.deletions = gone.len() + gone_slots.len() + gone_ranges.len() + gone_tables.len();
        report.operations = tables + slots.len() + ranges.len() + flips.len() + report.deletions;
        Ok(report)
    }

    /// Whether there is too little room for that.
    pub(super) fn lack(&self, room: &Room) -> bool {
        self.larger(room)
            .iter()
            .any(|(_, _, larger)| larger.is_some())
    }

    /// The tables that grow: their sizes, and the ones that they should have if those are not enough.
    fn larger(&self, room: &Room) -> [(&'static str, u32, Option<u32>); 3] {
        [
            (
                maps::FRONTENDS,
                room.frontends,
                self.frontends.max_entries(),
            ),
            (maps::BACKENDS, room.backends, self.backends.max_entries()),
            (maps::MAGLEV, room.maglev, self.maglev.max_entries()),
        ]
        .map(|(name, used, size)| (name, size, room::larger(used, size)))
    }

    /// Puts larger copies in the place of tables with too little room; for programs that are loaded from now on.
    pub(super) fn enlarge(&self, dir: &Path, room: &Room) -> Result<(), EbpfError> {
        for (name, from, to) in self.larger(room) {
            let Some(to) = to else { continue };
            tracing::info!(map = name, from, to, "a table of Services grows");
            match name {
                maps::FRONTENDS => self.frontends.replace_pin(dir, to)?,
                maps::BACKENDS => self.backends.replace_pin(dir, to)?,
                _ => self.maglev.replace_pin(dir, to)?,
            }
        }
        Ok(())
    }

    /// Puts larger copies in the place of tables that programs write, where these are to hold more; for programs that are loaded
    /// from now on. Returns whether any was: then what the programs at work write meanwhile is here, and belongs
    /// [there](Self::take_in) once others are in their place.
    pub(super) fn outgrow(&self, dir: &Path, sizes: &MapSizes) -> Result<bool, EbpfError> {
        let flows = outgrow(&self.flows, dir, sizes.flows)?;
        if flows {
            // They have nothing to lose, and are made as large as the table.
            bpffs::unpin(&dir.join(maps::SHORTCUTS))?;
        }
        let grown = [
            flows,
            outgrow(&self.affinity, dir, sizes.affinity)?,
            outgrow(&self.sockets_tcp, dir, sizes.sockets)?,
            outgrow(&self.sockets_udp, dir, sizes.sockets)?,
            outgrow(&self.steady, dir, sizes.sockets)?,
        ];
        Ok(grown.contains(&true))
    }

    /// Takes over what has come into the tables that these have outgrown.
    pub(super) fn take_in(&self, former: &Self) -> Result<usize, EbpfError> {
        Ok(take_in(&self.flows, &former.flows)?
            + take_in(&self.affinity, &former.affinity)?
            + take_in(&self.sockets_tcp, &former.sockets_tcp)?
            + take_in(&self.sockets_udp, &former.sockets_udp)?
            + take_in(&self.steady, &former.steady)?)
    }
}

fn outgrow<K, V>(table: &Table<K, V>, dir: &Path, size: u32) -> Result<bool, EbpfError>
where
    K: Plain + Default,
    V: Plain + Default,
{
    let from = table.max_entries();
    if from >= size {
        return Ok(false);
    }
    tracing::info!(
        map = table.name(),
        from,
        to = size,
        "a table of flows grows"
    );
    table.replace_pin(dir, size)?;
    Ok(true)
}

fn take_in<K, V>(table: &Table<K, V>, former: &Table<K, V>) -> Result<usize, EbpfError>
where
    K: Plain + Default + Ord,
    V: Plain + Default,
{
    match table.max_entries() == former.max_entries() {
        true => Ok(0),
        // Who has made them has counted them.
        false => table.fill(former.entries()?),
    }
}
