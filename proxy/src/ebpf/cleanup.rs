//! Removing everything of ours, from pins alone: whatever process made them, and of whatever layout.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use seaway_ebpf_abi::legacy::VERSION;
use seaway_kernel::{NetNs, Netlink};

use super::config::EbpfConfig;
use super::error::EbpfError;
use super::{bpffs, filters, links, sys};

/// Removes links, filters, maps and directories, and looks again. Returns one line per kind of thing removed.
pub(super) async fn cleanup(
    settings: &EbpfConfig,
    netlink: &Netlink,
    netns: &NetNs,
) -> Result<Vec<String>, EbpfError> {
    let mut lines = Vec::new();
    let interfaces = netlink.links().await?;
    let interfaces: Vec<(u32, String)> = interfaces
        .into_iter()
        .map(|link| (link.index, link.name))
        .collect();
    let mut detached = 0;
    let mut filters = 0;
    let mut maps = 0;
    for dir in layouts(&settings.bpffs_root)? {
        let link_dir = dir.join("links");
        detached += detach(&link_dir)?;
        filters += filters::detach_all(&link_dir, &interfaces, netns).await?;
        maps += remove(&dir)?;
    }
    // Other data planes (of a lab on the same machine) may have their directories beside ours.
    let _ = fs::remove_dir(&settings.bpffs_root);
    for (what, count) in [
        ("eBPF links", detached),
        ("tc filters", filters),
        ("eBPF maps", maps),
    ] {
        if count > 0 {
            lines.push(format!("{what}: {count}"));
        }
    }
    verify(settings)?;
    Ok(lines)
}

/// Removes what builds with another layout have left, once ours is attached: until then theirs goes on serving. What is still in
/// there ends, since nobody reads it any more; of the layout before ours it has been carried over.
pub(super) fn supersede(settings: &EbpfConfig) -> Result<(), EbpfError> {
    let own = settings.pin_dir();
    for dir in layouts(&settings.bpffs_root)? {
        if dir == own {
            continue;
        }
        let link_dir = dir.join("links");
        // Filters have been replaced by ours; the qdiscs that they stand in pass to us.
        filters::inherit(&link_dir, &settings.link_dir())?;
        let detached = detach(&link_dir)?;
        remove(&dir)?;
        if dir == settings.layout_dir(VERSION) {
            tracing::info!(layout = %dir.display(), "removed the layout before ours");
        } else {
            tracing::warn!(
                layout = %dir.display(),
                links = detached,
                "removed a layout that we cannot read: flows that its programs translated end"
            );
        }
    }
    Ok(())
}

/// Detaches pinned links and removes their pins; how many there were.
fn detach(link_dir: &Path) -> Result<usize, EbpfError> {
    let mut detached = 0;
    for name in bpffs::list(link_dir)? {
        let pin = link_dir.join(&name);
        if pin.is_dir() {
            continue;
        }
        if let Some((link, _)) = links::existing(&pin)? {
            // A link whose target is gone is detached already.
            let _ = sys::link_detach(link.as_fd());
        }
        bpffs::unpin(&pin)?;
        detached += 1;
    }
    Ok(detached)
}

/// Removes a layout's directories, empty of links, with its maps; how many there were.
fn remove(dir: &Path) -> Result<usize, EbpfError> {
    remove_dir(&dir.join("links"))?;
    let mut maps = 0;
    for name in bpffs::list(dir)? {
        bpffs::unpin(&dir.join(name))?;
        maps += 1;
    }
    remove_dir(dir)?;
    Ok(maps)
}

/// The directories `v<N>` below the root.
fn layouts(root: &Path) -> Result<Vec<PathBuf>, EbpfError> {
    let names = bpffs::list(root)?;
    Ok(names
        .into_iter()
        .filter(|name| {
            name.strip_prefix('v')
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        })
        .map(|name| root.join(name))
        .collect())
}

fn remove_dir(dir: &Path) -> Result<(), EbpfError> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EbpfError::file("remove", dir, error))
        }
        _ => Ok(()),
    }
}

/// Links were detached one by one, each with an answer; what is left to look at is the directory.
fn verify(settings: &EbpfConfig) -> Result<(), EbpfError> {
    match layouts(&settings.bpffs_root)?.first() {
        None => Ok(()),
        Some(dir) => Err(EbpfError::file(
            "remove",
            dir,
            io::Error::other("it is still there"),
        )),
    }
}
