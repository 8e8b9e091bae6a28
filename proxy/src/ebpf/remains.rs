//! What stays of eBPF mode in iptables mode: sockets that were translated at `connect()` talk to their backend, and need nothing
//! for that; but a program that asks who its peer is, or from where a datagram came, is to be told the frontend, as before.
//! The hooks that say it stay for as long as there is such a socket, and go with the last.
//!
//! And flows that rules cannot carry: packets that this node sends on to another one as they are, or takes so from another
//! one. The programs that serve packets stay for as long as there is such a flow, and leave all else to the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seaway_ebpf_abi::config::CONFIG_HANDOVER;
use seaway_ebpf_abi::flow::{FLOW_DIRECT, FLOW_SENT_ON, FLOW_STACK};
use seaway_ebpf_abi::{SocketKey, SocketValue, maps};
use seaway_kernel::sock_diag::SocketFamily;
use seaway_kernel::{Error, NetNs, Netlink, SockDiag};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::config::{EbpfConfig, pin_dir};
use super::error::EbpfError;
use super::flow_table::FlowTable;
use super::table::Table;
use super::tables::Tables;
use super::{adopt, bpffs, cleanup, gc, sys};
use crate::task::blocking;

/// How often sockets and flows are looked for, and how long programs stay at least: longer than it takes until other nodes have
/// heard that no flow is to begin here.
const PERIOD: Duration = Duration::from_secs(30);

/// How to list the sockets that an entry may be of.
type List = fn(&mut SockDiag) -> Result<BTreeSet<u64>, Error>;

/// The tables of the hooks that stay, and whose sockets they are.
const TABLES: [(&str, List); 2] = [
    (maps::SOCKETS_TCP, SockDiag::tcp_cookies),
    (maps::SOCKETS_UDP, connected_udp),
];

/// Those that are not connected have got answers by their frontend's name since the change of mode.
fn connected_udp(diag: &mut SockDiag) -> Result<BTreeSet<u64>, Error> {
    let mut sockets = diag.connected_udp(SocketFamily::V4, None)?;
    sockets.extend(diag.connected_udp(SocketFamily::V6, None)?);
    Ok(sockets.iter().map(|socket| socket.cookie).collect())
}

/// Looks after what stays until nothing needs it, or until it is stopped.
#[derive(Debug)]
pub struct Remains {
    task: JoinHandle<()>,
}

impl Remains {
    /// Starts it for a data plane that has pinned below `bpffs_root`. Where nothing is, there is nothing to do. Whoever is to be
    /// told when no packet of other nodes is taken any more is called once then.
    pub fn watch(bpffs_root: &Path, programs_gone: impl FnOnce() + Send + 'static) -> Self {
        let root = bpffs_root.to_path_buf();
        let task = tokio::spawn(follow(root, programs_gone));
        Self { task }
    }

    /// Ends it: nothing is removed any more once this returns.
    pub async fn leave(self) {
        self.task.abort();
        // An error says that it was ended, which is what was asked for.
        let _ = self.task.await;
    }
}

/// Whether there is nothing but what stays: programs that serve have more.
///
/// # Errors
///
/// If the pins cannot be read.
pub fn is_all_there_is(bpffs_root: &Path) -> Result<bool, EbpfError> {
    let dir = pin_dir(bpffs_root);
    let here: BTreeSet<String> = bpffs::list(&dir)?.into_iter().collect();
    let stays = |name: &String| TABLES.iter().any(|(table, _)| table == name) || name == "links";
    Ok(!here.is_empty() && here.iter().all(stays) && !cleanup::has_other_dir(bpffs_root, &dir)?)
}

/// What is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Hooks,
    Programs,
}

async fn follow(root: PathBuf, programs_gone: impl FnOnce()) {
    let mut programs_gone = Some(programs_gone);
    let mut tick = interval_at(Instant::now() + PERIOD, PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match look(&root).await {
            Ok(Left::Programs) => {}
            Ok(left) => {
                if let Some(programs_gone) = programs_gone.take() {
                    programs_gone();
                }
                if left == Left::Nothing {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether hooks of eBPF mode are still needed");
            }
        }
    }
}

/// Forgets flows and sockets that are over; with the last, what they need goes.
async fn look(root: &Path) -> Result<Left, EbpfError> {
    let dir = pin_dir(root);
    if bpffs::list(&dir)?.is_empty() {
        return Ok(Left::Nothing);
    }
    if !is_all_there_is(root)? && !serve_out(root).await? {
        return Ok(Left::Programs);
    }
    let left = blocking(move || forget_closed(&dir)).await?;
    if left > 0 {
        tracing::debug!(sockets = left, "hooks of eBPF mode are still needed");
        return Ok(Left::Hooks);
    }
    // Without a pause from here on: see `leave`.
    cleanup::remove_remains(&settings(root))?;
    tracing::info!("the last socket that was connected in eBPF mode is closed: its hooks are gone");
    Ok(Left::Nothing)
}

/// As far as it takes to remove something.
fn settings(root: &Path) -> EbpfConfig {
    EbpfConfig {
        bpffs_root: root.to_path_buf(),
        ..EbpfConfig::new("", "")
    }
}

/// Removes the programs that serve packets, if nothing but direct flows kept them, and those are over; whether they are gone.
async fn serve_out(root: &Path) -> Result<bool, EbpfError> {
    let Some(tables) = Tables::open(&pin_dir(root))? else {
        return Ok(false);
    };
    // Else they serve what begins, for whoever follows.
    if tables.read_config()?.flags & CONFIG_HANDOVER == 0 {
        return Ok(false);
    }
    let flows = tables.flows.clone();
    let left = blocking(move || {
        gc::pass(&flows, sys::monotonic_ns())?;
        let entries = flows.entries()?;
        let of_rules = |flags: u8| flags & FLOW_STACK != 0;
        Ok::<_, EbpfError>(
            entries
                .iter()
                .filter(|(_, flow)| !of_rules(flow.flags))
                .count(),
        )
    })
    .await?;
    if left > 0 {
        tracing::debug!(entries = left, "programs of eBPF mode are still needed");
        return Ok(false);
    }
    let netns = NetNs::current()?;
    let netlink = Netlink::in_namespace(&netns)?;
    // Stopped in between it goes on the next time: the flow table goes last.
    cleanup::withdraw(&settings(root), &netlink, &netns).await?;
    tracing::info!(
        "the last flow that another node answers, or this one for another, is over: its programs are gone"
    );
    Ok(true)
}

/// How many flows there are in which another node answers, or the other node's clients are answered here.
pub(super) fn direct_flows(flows: &FlowTable) -> Result<usize, EbpfError> {
    let now = sys::monotonic_ns();
    let entries = flows.entries()?;
    let direct = |(key, flow): &&_| adopt::is_direct(key, flow, now);
    Ok(entries.iter().filter(direct).count())
}

/// Takes all others out of the flow table: connection tracking has them.
pub(super) fn keep_direct(flows: &FlowTable) -> Result<(), EbpfError> {
    let entries = flows.entries()?;
    let others = entries
        .iter()
        .filter(|(_, flow)| flow.flags & (FLOW_SENT_ON | FLOW_DIRECT) == 0);
    let others: Vec<_> = others.map(|(key, _)| *key).collect();
    flows.delete_all(&others)?;
    Ok(())
}

/// Deletes the entries of sockets that are closed; how many are left.
fn forget_closed(dir: &Path) -> Result<usize, EbpfError> {
    let mut left = 0;
    for (name, list) in TABLES {
        let table: Option<Table<SocketKey, SocketValue>> = Table::open(dir, name)?;
        let Some(table) = table else { continue };
        let entries = table.entries()?;
        let open = open_sockets(&entries, list);
        let closed: Vec<SocketKey> = closed(&entries, &open);
        table.delete_all(&closed)?;
        left += entries.len() - closed.len();
    }
    Ok(left)
}

/// The sockets that are open, by namespace; `None` of one that could not be asked.
type Open = BTreeMap<u64, Option<BTreeSet<u64>>>;

fn open_sockets(entries: &[(SocketKey, SocketValue)], list: List) -> Open {
    let mut wanted: BTreeSet<u64> = entries.iter().map(|(_, value)| value.netns).collect();
    let mut open = Open::new();
    if wanted.is_empty() {
        return open;
    }
    NetNs::visit_all(|netns| {
        if let Ok(cookie) = netns.cookie()
            && wanted.remove(&cookie)
        {
            let cookies = SockDiag::in_namespace(&netns).and_then(|mut diag| list(&mut diag));
            let cookies = cookies.inspect_err(|error| {
                tracing::debug!(%error, namespace = %netns, "cannot list sockets");
            });
            open.insert(cookie, cookies.ok());
        }
        match wanted.is_empty() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    open
}

/// The entries whose socket is gone, or its namespace.
fn closed(entries: &[(SocketKey, SocketValue)], open: &Open) -> Vec<SocketKey> {
    let is_closed = |(key, value): &&(SocketKey, SocketValue)| match open.get(&value.netns) {
        None => true,
        Some(None) => false,
        Some(Some(cookies)) => !cookies.contains(&key.cookie),
    };
    let closed = entries.iter().filter(is_closed);
    closed.map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use seaway_ebpf_abi::{FlowKey, FlowValue, UDP};

    use super::super::config::MapSizes;
    use super::super::objects::Programs;
    use super::*;

    /// Needs root and a BPF file system.
    #[tokio::test]
    async fn hooks_stay_for_as_long_as_there_is_a_socket() {
        let name = format!("seaway-remains-{}", std::process::id());
        let root = Path::new("/sys/fs/bpf").join(&name);
        let dir = pin_dir(&root);
        bpffs::create_dir(&dir.join("links")).unwrap();
        drop(Programs::load(&dir, MapSizes::default()).unwrap());
        let left = look(&root).await.unwrap();
        assert_eq!(left, Left::Programs, "programs that serve stay");
        for map in bpffs::list(&dir).unwrap() {
            if map != "links" && !TABLES.iter().any(|(table, _)| *table == map) {
                bpffs::unpin(&dir.join(map)).unwrap();
            }
        }
        let netns = NetNs::create(&name).unwrap();
        let listener = netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let listener = listener.unwrap();
        let mut diag = SockDiag::in_namespace(&netns).unwrap();
        let cookie = diag.tcp_cookies().unwrap().pop_first().unwrap();
        let table: Table<SocketKey, SocketValue> =
            Table::open(&dir, maps::SOCKETS_TCP).unwrap().unwrap();
        let value = SocketValue {
            netns: netns.cookie().unwrap(),
            ..SocketValue::default()
        };
        for cookie in [cookie, u64::MAX] {
            let key = SocketKey {
                cookie,
                ..SocketKey::default()
            };
            table.set(&key, &value).unwrap();
        }
        assert_eq!(look(&root).await.unwrap(), Left::Hooks);
        assert_eq!(table.entries().unwrap().len(), 1);
        drop(listener);
        for _ in 0..2 {
            assert_eq!(look(&root).await.unwrap(), Left::Nothing);
            assert!(!root.exists());
        }
        NetNs::delete(&name).unwrap();
    }

    /// Needs root and a BPF file system.
    #[tokio::test]
    async fn programs_stay_for_as_long_as_there_is_a_direct_flow() {
        let name = format!("seaway-direct-{}", std::process::id());
        let root = Path::new("/sys/fs/bpf").join(&name);
        let dir = pin_dir(&root);
        bpffs::create_dir(&dir.join("links")).unwrap();
        drop(Programs::load(&dir, MapSizes::default()).unwrap());
        let tables = Tables::open(&dir).unwrap().unwrap();
        let client = |sport| FlowKey {
            sport,
            protocol: UDP,
            ..FlowKey::default()
        };
        let flow = |flags| FlowValue {
            last_seen: sys::monotonic_ns(),
            flags,
            ..FlowValue::default()
        };
        for (sport, flags) in [(1, FLOW_SENT_ON), (2, 0), (3, FLOW_STACK), (4, FLOW_DIRECT)] {
            tables.flows.set(&client(sport), &flow(flags)).unwrap();
        }
        keep_direct(&tables.flows).unwrap();
        assert_eq!(direct_flows(&tables.flows).unwrap(), 2);
        assert_eq!(tables.flows.entries().unwrap().len(), 2);
        tables.flows.delete_all(&[client(1)]).unwrap();
        let mut config = tables.read_config().unwrap();
        config.flags |= CONFIG_HANDOVER;
        tables.config.set(&0, &config).unwrap();
        // Left to connection tracking: that keeps nothing.
        tables.flows.set(&client(3), &flow(FLOW_STACK)).unwrap();
        assert_eq!(look(&root).await.unwrap(), Left::Programs);
        let silent = FlowValue {
            last_seen: 0,
            ..flow(FLOW_DIRECT)
        };
        tables.flows.set(&client(4), &silent).unwrap();
        // A machine that has just been started has seen no flow for long.
        let timeout = gc::timeout(UDP, &silent);
        if sys::monotonic_ns() <= timeout {
            tables.flows.delete_all(&[client(4)]).unwrap();
        }
        assert_eq!(look(&root).await.unwrap(), Left::Nothing);
        assert!(!root.exists());
    }

    #[test]
    fn a_socket_is_closed_if_its_namespace_says_so_or_is_gone() {
        let entry = |cookie, netns| {
            let key = SocketKey {
                cookie,
                ..SocketKey::default()
            };
            let value = SocketValue {
                netns,
                ..SocketValue::default()
            };
            (key, value)
        };
        let entries = [entry(1, 10), entry(2, 10), entry(3, 20), entry(4, 30)];
        let open = Open::from([(10, Some(BTreeSet::from([2, 9]))), (20, None)]);
        let cookies: Vec<u64> = closed(&entries, &open)
            .iter()
            .map(|key| key.cookie)
            .collect();
        assert_eq!(cookies, [1, 4]);
    }
}
