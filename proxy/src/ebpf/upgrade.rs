//! What a build with the layout before ours has left: its flows and sockets go on, through its links, which become ours.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use seaway_ebpf_abi::legacy::{OldFlowValue, OldSocketValue, VERSION};
use seaway_ebpf_abi::{
    AffinityKey, AffinityValue, FlowValue, Plain, SocketKey, SocketValue, SteadyValue, maps,
};

use super::bpffs;
use super::config::EbpfConfig;
use super::error::EbpfError;
use super::flow_table::FlowTable;
use super::table::Table;
use super::tables::Tables;

/// Entries that were carried over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) flows: usize,
    pub(super) sockets: usize,
    pub(super) clients: usize,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flows,
            sockets,
            clients,
        } = self;
        write!(
            f,
            "{flows} entries of flows, {sockets} of sockets and {clients} of session affinity go on; counters begin anew, \
             packets in fragments may be lost, and UDP sockets from before outlive their backend"
        )
    }
}

/// Takes over what is there of the layout before ours; `None` if there is nothing. What is in our maps already is newer and
/// stays: so this can be done once more after its links have become ours, for what came in between.
pub(super) fn carry(settings: &EbpfConfig, tables: &Tables) -> Result<Option<Carried>, EbpfError> {
    let dir = settings.layout_dir(VERSION);
    if !dir.exists() {
        return Ok(None);
    }
    let flow = |old: OldFlowValue| FlowValue::from(old);
    let socket = |old: OldSocketValue| SocketValue::from(old);
    let steady = |old: SteadyValue| SteadyValue { set: 0, ..old };
    let client = |old: AffinityValue| old;
    Ok(Some(Carried {
        flows: bring_in(&dir, &tables.flows, flow)?,
        sockets: copy::<SocketKey, _, _>(&dir, maps::SOCKETS_TCP, &tables.sockets_tcp, socket)?
            + copy::<SocketKey, _, _>(&dir, maps::SOCKETS_UDP, &tables.sockets_udp, socket)?
            + copy::<SocketKey, _, _>(&dir, maps::STEADY, &tables.steady, steady)?,
        clients: copy::<AffinityKey, _, _>(&dir, maps::AFFINITY, &tables.affinity, client)?,
    }))
}

/// Copies the entries that are not there yet. A map that cannot be read as that layout has it is left, and said.
fn copy<K, O, N>(
    dir: &Path,
    name: &'static str,
    to: &Table<K, N>,
    convert: impl Fn(O) -> N,
) -> Result<usize, EbpfError>
where
    K: Plain + Default + Ord,
    O: Plain + Default,
    N: Plain + Default,
{
    fill(to, old_entries(dir, name, convert)?)
}

/// The same of flows, which are counted.
fn bring_in(
    dir: &Path,
    to: &FlowTable,
    convert: impl Fn(OldFlowValue) -> FlowValue,
) -> Result<usize, EbpfError> {
    let missing = missing(to, old_entries(dir, maps::FLOWS, convert)?)?;
    to.bring_in(&missing)?;
    Ok(missing.len())
}

/// The entries of a map of that layout.
fn old_entries<K, O, N>(
    dir: &Path,
    name: &'static str,
    convert: impl Fn(O) -> N,
) -> Result<Vec<(K, N)>, EbpfError>
where
    K: Plain + Default,
    O: Plain + Default,
{
    match Table::<K, O>::open(dir, name) {
        Ok(Some(old)) => old.entries_as(convert),
        Ok(None) => Ok(Vec::new()),
        Err(error) => {
            tracing::warn!(%error, map = name, "what an older layout holds cannot be carried over: it ends");
            Ok(Vec::new())
        }
    }
}

/// Writes the entries that are not there yet; how many those were.
pub(super) fn fill<K, V>(to: &Table<K, V>, entries: Vec<(K, V)>) -> Result<usize, EbpfError>
where
    K: Plain + Default + Ord,
    V: Plain + Default,
{
    let missing = missing(to, entries)?;
    to.set_all(&missing)?;
    Ok(missing.len())
}

fn missing<K, V>(to: &Table<K, V>, entries: Vec<(K, V)>) -> Result<Vec<(K, V)>, EbpfError>
where
    K: Plain + Default + Ord,
    V: Plain + Default,
{
    let there = to.entries_as(|_| ())?;
    let there: BTreeSet<K> = there.into_iter().map(|(key, ())| key).collect();
    let entries = entries.into_iter();
    Ok(entries.filter(|(key, _)| !there.contains(key)).collect())
}

/// Makes the links of that layout ours, so that our programs are put behind them: there is no moment without a program, and
/// none with two.
pub(super) fn inherit_links(settings: &EbpfConfig) -> Result<usize, EbpfError> {
    let (from, to) = (
        settings.layout_dir(VERSION).join("links"),
        settings.link_dir(),
    );
    let mut inherited = 0;
    for name in bpffs::list(&from)? {
        let (old, new) = (from.join(&name), to.join(&name));
        // A directory is the mark of a qdisc, not a link. What is there already is attached, and the old one is superfluous.
        if !old.is_dir() && !new.exists() {
            fs::rename(&old, &new).map_err(|e| EbpfError::file("rename", &old, e))?;
            inherited += 1;
        }
    }
    Ok(inherited)
}
