//! `ipam` and `gc`: the ledger, seen and tidied by hand.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use seaway_kernel::{NetNs, RouteSocket, netns};
use seaway_model::ownership::POD_LINK_PREFIX;
use serde_json::{Value, json};

use super::{GcArgs, IpamArgs};
use crate::command::{release_all, since_boot};
use crate::ipam::{Entry, Lease, Ledger};

/// An ADD reserves the address before it makes the interface; a younger lease may belong to one that is under way.
const SETTLED: Duration = Duration::from_secs(60);

/// What is known of a lease's owner. Neither alone proves that the pod is gone: a link may have been renamed, and a
/// namespace be kept by a process when its path is gone. Both together do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proof {
    /// The node's end of the pair is there; for a lease without an interface of ours: a namespace with the recorded
    /// number is found somewhere on the machine.
    interface: bool,
    /// The recorded path leads to the recorded namespace.
    namespace: bool,
}

impl Proof {
    fn of(lease: &Lease, digits: &str, host: &mut RouteSocket) -> anyhow::Result<Self> {
        let namespace = NetNs::open(Path::new(&lease.netns))
            .and_then(|found| found.identity())
            .is_ok_and(|id| lease.netns_id.is_none_or(|recorded| recorded == id));
        let interface = if lease.interface {
            host.link(&format!("{POD_LINK_PREFIX}{digits}"))?.is_some()
        } else {
            lease
                .netns_id
                .is_none_or(|id| netns::places().any(|place| place.identity() == id))
        };
        Ok(Self {
            interface,
            namespace,
        })
    }

    fn is_dead(self) -> bool {
        !self.interface && !self.namespace
    }

    fn words(self) -> &'static str {
        match (self.interface, self.namespace) {
            (true, true) => "link and namespace are there",
            (true, false) => "link is there, namespace is gone",
            (false, true) => "link is gone, namespace is there",
            (false, false) => "link and namespace are gone",
        }
    }
}

/// An address, and what stands in its file.
struct Row {
    network: String,
    entry: Entry,
    /// None if it is not in use.
    lease: Option<Result<(Lease, Proof), String>>,
}

pub(super) fn show(args: &IpamArgs) -> anyhow::Result<()> {
    let mut host = RouteSocket::open()?;
    let mut rows = Vec::new();
    for network in networks(&args.state_dir, args.network.as_deref())? {
        let Some(ledger) = Ledger::open_existing(&Ledger::root(&args.state_dir), &network)? else {
            continue;
        };
        for entry in ledger.entries()? {
            let lease = match &entry {
                Entry::Freed { .. } => None,
                Entry::InUse { owner, .. } => Some(match ledger.lease(&entry) {
                    Ok(lease) => {
                        let proof = Proof::of(&lease, owner, &mut host)?;
                        Ok((lease, proof))
                    }
                    Err(reason) => Err(reason),
                }),
            };
            let network = network.clone();
            rows.push(Row {
                network,
                entry,
                lease,
            });
        }
    }
    if args.json {
        let list: Vec<_> = rows.iter().map(Row::to_json).collect();
        println!("{:#}", Value::from(list));
        return Ok(());
    }
    println!(
        "{:<12} {:<24} {:<8} {:<14} {:<34} CONTAINER",
        "NETWORK", "ADDRESS", "STATE", "LINK", "PROOF OF LIFE"
    );
    for row in &rows {
        row.print();
    }
    Ok(())
}

impl Row {
    fn link(&self) -> String {
        match &self.entry {
            Entry::InUse { owner, .. } => format!("{POD_LINK_PREFIX}{owner}"),
            Entry::Freed { .. } => String::new(),
        }
    }

    fn state(&self) -> &'static str {
        match &self.lease {
            None => "freed",
            Some(Ok(_)) => "in use",
            Some(Err(_)) => "corrupt",
        }
    }

    fn print(&self) {
        let (proof, container) = match &self.lease {
            None => ("", String::new()),
            Some(Ok((lease, proof))) => {
                let owner = &lease.owner;
                (
                    proof.words(),
                    format!("{} ({})", owner.container_id, owner.ifname),
                )
            }
            Some(Err(reason)) => ("", format!("the file cannot be read: {reason}")),
        };
        println!(
            "{:<12} {:<24} {:<8} {:<14} {proof:<34} {container}",
            self.network,
            self.entry.address().to_string(),
            self.state(),
            self.link(),
        );
    }

    fn to_json(&self) -> Value {
        let mut object = json!({
            "network": self.network,
            "address": self.entry.address(),
            "state": self.state(),
        });
        if !self.link().is_empty() {
            object["link"] = self.link().into();
        }
        match &self.lease {
            None => {}
            Some(Ok((lease, proof))) => {
                object["containerID"] = lease.owner.container_id.as_str().into();
                object["ifname"] = lease.owner.ifname.as_str().into();
                object["netns"] = lease.netns.as_str().into();
                object["interfaceIsThere"] = proof.interface.into();
                object["namespaceIsThere"] = proof.namespace.into();
            }
            Some(Err(reason)) => object["reason"] = reason.as_str().into(),
        }
        object
    }
}

pub(super) fn gc(args: &GcArgs) -> anyhow::Result<()> {
    let mut host = RouteSocket::open()?;
    let now = since_boot()?;
    let verb = if args.dry_run { "would free" } else { "frees" };
    for network in networks(&args.state_dir, args.network.as_deref())? {
        let Some(ledger) = Ledger::open_existing(&Ledger::root(&args.state_dir), &network)? else {
            continue;
        };
        let mut gone = BTreeSet::new();
        for entry in ledger.entries()? {
            let Entry::InUse { address, owner } = &entry else {
                continue;
            };
            // A file that cannot be read says nothing of its owner.
            let Ok(lease) = ledger.lease(&entry) else {
                continue;
            };
            let age = now.saturating_sub(Duration::from_millis(lease.since));
            if age >= SETTLED && Proof::of(&lease, owner, &mut host)?.is_dead() {
                println!("{verb} {address} of container {}", lease.owner.container_id);
                gone.insert(owner.clone());
            }
        }
        if !args.dry_run {
            release_all(&ledger, &gone, true)?;
        }
    }
    Ok(())
}

/// The pods of this boot that the ledgers know and that are not proved to be dead.
pub(super) fn living(state_dir: &Path, host: &mut RouteSocket) -> anyhow::Result<Vec<String>> {
    let mut living = Vec::new();
    for network in networks(state_dir, None)? {
        let Some(ledger) = Ledger::open_existing(&Ledger::root(state_dir), &network)? else {
            continue;
        };
        for entry in ledger.entries()? {
            let Entry::InUse { address, owner } = &entry else {
                continue;
            };
            match ledger.lease(&entry) {
                Ok(lease) if Proof::of(&lease, owner, host)?.is_dead() => {}
                Ok(lease) => {
                    let container = lease.owner.container_id;
                    living.push(format!("{address} of container {container}"));
                }
                // It says nothing of its owner: who is alive has a link on the node as well.
                Err(_) => {}
            }
        }
    }
    Ok(living)
}

/// The networks that have a ledger.
fn networks(state_dir: &Path, only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let root = Ledger::root(state_dir);
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot list {}", root.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if only.is_none_or(|only| only == name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
