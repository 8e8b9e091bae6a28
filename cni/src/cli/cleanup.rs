//! `cleanup`: nothing of the plugin stays on the node.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::bail;
use seaway_kernel::nftables::Transaction;
use seaway_kernel::{Batch, Nftables, RouteSocket};
use seaway_model::ownership::{CONFLIST_FILE, HOST_PORTS_TABLE, is_pod_link, is_shaping_link};

use super::CleanupArgs;
use super::ipam::living;
use crate::PLUGIN_NAME;
use crate::ipam::Ledger;

/// Removes links, table and files, in this order, so that no address is free while something answers to it; then looks
/// whether all is gone. One failure does not stop the rest.
pub(super) fn run(args: &CleanupArgs) -> anyhow::Result<()> {
    let mut host = RouteSocket::open()?;
    if !args.force {
        let mut alive = links(&mut host)?;
        alive.extend(living(&args.state_dir, &mut host)?);
        if !alive.is_empty() {
            bail!(
                "pods are on this node: {}. Drain it first, or cut them off with --force",
                alive.join(", ")
            );
        }
    }
    let ledgers = Ledger::root(&args.state_dir);
    let list = args.conflist.as_ref().map(|dir| dir.join(CONFLIST_FILE));
    let program = args.cni_bin_dir.as_ref().map(|dir| dir.join(PLUGIN_NAME));
    let files: Vec<PathBuf> = [Some(&ledgers), list.as_ref(), program.as_ref()]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let found = left(&files, &mut host)?;
    let mut failures = Vec::new();
    // Without the list no runtime asks for another pod.
    failures.extend(
        list.as_deref()
            .and_then(|file| refused(file, fs::remove_file(file))),
    );
    for link in links(&mut host)? {
        let mut batch = Batch::default();
        batch.delete_link(&link);
        failures.extend(host.apply(&batch).err().map(|e| e.to_string()));
    }
    // A kernel without nftables has no table of ours.
    if let Ok(mut nft) = Nftables::open()
        && nft.has_table(HOST_PORTS_TABLE).unwrap_or(false)
    {
        let mut table = Transaction::new(HOST_PORTS_TABLE);
        table.delete_table();
        failures.extend(nft.commit(&table).err().map(|e| e.to_string()));
    }
    failures.extend(refused(&ledgers, fs::remove_dir_all(&ledgers)));
    failures.extend(
        program
            .as_deref()
            .and_then(|file| refused(file, fs::remove_file(file))),
    );
    failures.extend(left(&files, &mut host)?);
    if failures.is_empty() {
        for one in &found {
            println!("removed {one}");
        }
        if found.is_empty() {
            println!("nothing to remove");
        }
        return Ok(());
    }
    bail!("not everything is gone: {}", failures.join("; "))
}

/// What is there; afterwards what is still there, or there again: a runtime may have asked for a pod meanwhile.
fn left(files: &[PathBuf], host: &mut RouteSocket) -> anyhow::Result<Vec<String>> {
    let mut left = links(host)?;
    if Nftables::open().is_ok_and(|mut nft| nft.has_table(HOST_PORTS_TABLE).unwrap_or(false)) {
        left.push(format!("nftables table inet {HOST_PORTS_TABLE}"));
    }
    let there = files.iter().filter(|file| file.symlink_metadata().is_ok());
    left.extend(there.map(|file| file.display().to_string()));
    Ok(left)
}

/// The links of pods and of their limits, by their names.
fn links(host: &mut RouteSocket) -> anyhow::Result<Vec<String>> {
    let names = host.links()?.into_iter().map(|link| link.name);
    Ok(names
        .filter(|name| is_pod_link(name) || is_shaping_link(name))
        .collect())
}

fn refused(path: &Path, removed: io::Result<()>) -> Option<String> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Some(format!("cannot remove {}: {error}", path.display()))
        }
        _ => None,
    }
}
