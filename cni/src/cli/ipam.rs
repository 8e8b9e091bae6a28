//! `ipam` and `gc`: the ledger, seen and tidied by hand.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use seaway_kernel::Netlink;
use serde_json::{Value, json};

use super::{GcArgs, IpamArgs};
use crate::attachment::host_link;
use crate::command::release_all;
use crate::ipam::{Entry, Ledger, Record};
use crate::protocol::OwnerKey;

/// An ADD reserves the address before it makes the interface; a younger lease may belong to one that is under way.
const SETTLED: Duration = Duration::from_secs(60);

pub(super) fn show(args: &IpamArgs) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut corrupt = Vec::new();
    for network in networks(&args.state_dir, args.network.as_deref())? {
        let ledger = Ledger::open(&args.state_dir, &network)?;
        for entry in ledger.entries()? {
            if entry.record.is_err() {
                corrupt.push(ledger.path(entry.address).display().to_string());
            }
            rows.push((network.clone(), entry));
        }
    }
    if args.json {
        let list: Vec<_> = rows.iter().map(|(n, e)| to_json(n, e)).collect();
        println!("{:#}", Value::from(list));
    } else {
        println!(
            "{:<12} {:<24} {:<10} {:<16} CONTAINER",
            "NETWORK", "ADDRESS", "STATE", "LINK"
        );
        for (network, entry) in &rows {
            let (state, link, container) = columns(entry);
            println!(
                "{network:<12} {:<24} {state:<10} {link:<16} {container}",
                entry.address
            );
        }
    }
    if !corrupt.is_empty() {
        bail!("not a ledger entry: {}", corrupt.join(", "));
    }
    Ok(())
}

fn columns(entry: &Entry) -> (&'static str, String, String) {
    match &entry.record {
        Ok(Record::Owner(owner)) => {
            let container = format!("{} ({})", owner.container_id, owner.ifname);
            ("in use", host_link(owner), container)
        }
        Ok(Record::FreedAt(_)) => ("freed", String::new(), String::new()),
        Err(reason) => ("corrupt", String::new(), reason.clone()),
    }
}

fn to_json(network: &str, entry: &Entry) -> Value {
    let (state, link, _) = columns(entry);
    let mut object = json!({ "network": network, "address": entry.address, "state": state });
    match &entry.record {
        Ok(Record::Owner(owner)) => {
            object["containerID"] = owner.container_id.as_str().into();
            object["ifname"] = owner.ifname.as_str().into();
            object["link"] = link.into();
        }
        Ok(Record::FreedAt(_)) => {}
        Err(reason) => object["reason"] = reason.as_str().into(),
    }
    object
}

pub(super) async fn gc(args: &GcArgs) -> anyhow::Result<()> {
    let netlink = Netlink::new()?;
    for network in networks(&args.state_dir, args.network.as_deref())? {
        let ledger = Ledger::open(&args.state_dir, &network)?;
        let mut gone: Vec<OwnerKey> = Vec::new();
        for entry in ledger.entries()? {
            let Some(owner) = entry.owner() else { continue };
            let age = SystemTime::now()
                .duration_since(ledger.modified(entry.address)?)
                .unwrap_or_default();
            if age >= SETTLED && netlink.link(&host_link(owner)).await?.is_none() {
                let verb = if args.dry_run { "would free" } else { "frees" };
                println!(
                    "{verb} {} of container {}",
                    entry.address, owner.container_id
                );
                gone.push(owner.clone());
            }
        }
        if !args.dry_run {
            release_all(&ledger, &gone).await?;
        }
    }
    Ok(())
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
