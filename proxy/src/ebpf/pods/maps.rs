//! The maps of pods: written as far as they differ, and shown.

use std::collections::BTreeMap;
use std::path::Path;

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::pod::{POD_FAST, POD_LINKS_LEN};
use seaway_ebpf_abi::{Addr, PeerValue, Plain, PodLink, PodValue, maps};

use super::Local;
use super::peers::{Peers, network};
use crate::ebpf::dump;
use crate::ebpf::error::EbpfError;
use crate::ebpf::table::Table;

/// What the maps hold of this node's pods.
pub(super) fn read_local(dir: &Path) -> Result<Local, EbpfError> {
    let mut links = read::<u32, PodLink>(dir, maps::POD_LINKS)?;
    links.retain(|place, link| *place < POD_LINKS_LEN && link.ifindex != 0);
    Ok(Local {
        addresses: read(dir, maps::PODS)?,
        links,
    })
}

/// Likewise of those of other nodes.
pub(super) fn read_peers(dir: &Path) -> Result<Peers, EbpfError> {
    read(dir, maps::PEERS)
}

/// Writes what is wanted where something else is there. Returns the number of writes.
pub(super) fn write_local(dir: &Path, there: &Local, wanted: &Local) -> Result<usize, EbpfError> {
    let Some(links) = Table::<u32, PodLink>::open(dir, maps::POD_LINKS)? else {
        return Ok(0);
    };
    // What belongs to a link that is gone goes first: its addresses may be another's now.
    let mut writes = 0;
    for (place, link) in &there.links {
        let stays = wanted.links.get(place);
        if stays.is_none_or(|wanted| wanted.ifindex != link.ifindex) {
            links.set(place, &PodLink::default())?;
            writes += 1;
        }
    }
    writes += write(dir, maps::PODS, &there.addresses, &wanted.addresses)?;
    for (place, link) in &wanted.links {
        if there.links.get(place) != Some(link) {
            links.set(place, link)?;
            writes += 1;
        }
    }
    Ok(writes)
}

/// The same.
pub(super) fn write_peers(dir: &Path, there: &Peers, wanted: &Peers) -> Result<usize, EbpfError> {
    write(dir, maps::PEERS, there, wanted)
}

/// Forgets all pods, for programs that nobody keeps in step any more.
pub(in crate::ebpf) fn clear(dir: &Path) -> Result<(), EbpfError> {
    write_local(dir, &read_local(dir)?, &Local::default())?;
    write_peers(dir, &read_peers(dir)?, &Peers::default())?;
    Ok(())
}

fn read<K, V>(dir: &Path, name: &'static str) -> Result<BTreeMap<K, V>, EbpfError>
where
    K: Plain + Default + Ord,
    V: Plain + Default,
{
    Ok(match Table::open(dir, name)? {
        Some(table) => table.entries()?.into_iter().collect(),
        None => BTreeMap::new(),
    })
}

fn write<K, V>(
    dir: &Path,
    name: &'static str,
    there: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<usize, EbpfError>
where
    K: Plain + Default + Ord,
    V: Plain + Default + PartialEq,
{
    let Some(table) = Table::<K, V>::open(dir, name)? else {
        return Ok(0);
    };
    let mut writes = 0;
    // First: what comes needs the room.
    for key in there.keys().filter(|key| !wanted.contains_key(key)) {
        table.delete(key)?;
        writes += 1;
    }
    for (key, value) in wanted {
        if there.get(key) != Some(value) {
            table.set(key, value)?;
            writes += 1;
        }
    }
    Ok(writes)
}

/// What the programs know.
pub(in crate::ebpf) fn held(dir: &Path) -> Result<(Vec<dump::Pod>, Vec<dump::Peer>), EbpfError> {
    let pods: BTreeMap<Addr, PodValue> = read(dir, maps::PODS)?;
    let pods = pods.iter().map(|(addr, pod)| dump::Pod {
        address: addr.ip(),
        link: pod.ifindex,
        past_the_stack: pod.flags & POD_FAST != 0,
    });
    let peers = read_peers(dir)?;
    let peers = peers.iter().filter_map(|(key, peer)| {
        let (network, prefix) = network(key);
        Some(dump::Peer {
            network: IpNetwork::new(network, prefix).ok()?,
            node: (*peer != PeerValue::default()).then(|| peer.remote.ip()),
            vni: peer.vni,
        })
    });
    Ok((pods.collect(), peers.collect()))
}
