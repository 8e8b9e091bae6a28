//! What a build with the layout before ours has left: its flows and sockets go on, through its links, which become ours.

use std::fmt;
use std::fs;
use std::path::Path;

use seaway_ebpf_abi::legacy::{OldFlowValue, OldSocketValue, VERSION};
use seaway_ebpf_abi::{AffinityValue, FlowValue, Plain, SocketValue, SteadyValue};

use super::bpffs;
use super::config::EbpfConfig;
use super::counted::Counted;
use super::error::EbpfError;
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
        sockets: bring_in(&dir, &tables.sockets_tcp, socket)?
            + bring_in(&dir, &tables.sockets_udp, socket)?
            + bring_in(&dir, &tables.steady, steady)?,
        clients: bring_in(&dir, &tables.affinity, client)?,
    }))
}

/// Copies the entries that are not there yet. A map that cannot be read as that layout has it is left, and said.
fn bring_in<K, O, N>(
    dir: &Path,
    to: &Counted<K, N>,
    convert: impl Fn(O) -> N,
) -> Result<usize, EbpfError>
where
    K: Plain + Default + Ord,
    O: Plain + Default,
    N: Plain + Default,
{
    to.bring_in(old_entries(dir, to.name(), convert)?)
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
