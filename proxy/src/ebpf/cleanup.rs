//! Removing everything of ours, from pins alone: whatever process made them, and of whatever layout.

use std::fs;
use std::io;
use std::iter;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use seaway_ebpf_abi::legacy::VERSION;
use seaway_ebpf_abi::maps;
use seaway_kernel::{NetNs, Netlink};
use seaway_model::ownership::BPFFS_ROOT;

use super::config::EbpfConfig;
use super::error::EbpfError;
use super::{bpffs, filters, links, sys};

/// Removes links, filters, maps and directories, and looks again. Returns one line per kind of thing removed.
pub(super) async fn cleanup(
    settings: &EbpfConfig,
    netlink: &Netlink,
    netns: &NetNs,
) -> Result<Vec<String>, EbpfError> {
    let interfaces = interfaces(netlink).await?;
    let mut detached = 0;
    let mut filters = 0;
    let mut maps = 0;
    for dir in layouts(&settings.bpffs_root)? {
        let link_dir = dir.join("links");
        detached += detach(&link_dir, |_| false)?;
        filters += filters::detach_all(&link_dir, &interfaces, netns).await?;
        maps += remove(&dir)?;
    }
    remove_root(&settings.bpffs_root, Path::new(BPFFS_ROOT));
    verify(settings)?;
    Ok(lines(detached, filters, maps))
}

/// Removes the root of a data plane, and what is above it up to `ours`, as far as they are empty: other data planes (of a lab
/// on the same machine) may have their directories beside it. Of what is outside of `ours` nobody knows whose it is.
fn remove_root(root: &Path, ours: &Path) {
    let above = root.ancestors().skip(1);
    let above = above.take_while(|dir| dir.starts_with(ours));
    for dir in iter::once(root).chain(above) {
        let _ = fs::remove_dir(dir);
    }
}

async fn interfaces(netlink: &Netlink) -> Result<Vec<(u32, String)>, EbpfError> {
    let links = netlink.links().await?.into_iter();
    Ok(links.map(|link| (link.index, link.name)).collect())
}

/// What was removed.
fn lines(links: usize, filters: usize, maps: usize) -> Vec<String> {
    let counts = [
        ("eBPF links", links),
        ("tc filters", filters),
        ("eBPF maps", maps),
    ];
    let removed = counts.into_iter().filter(|(_, count)| *count > 0);
    removed
        .map(|(what, count)| format!("{what}: {count}"))
        .collect()
}

/// Hooks by which a socket that was connected through us sees its frontend, and what they read.
const SHOW_FRONTENDS: [&str; 4] = [
    "cgroup_sock_recvmsg4",
    "cgroup_sock_recvmsg6",
    "cgroup_sock_getpeername4",
    "cgroup_sock_getpeername6",
];
fn shows_frontends(name: &str) -> bool {
    SHOW_FRONTENDS.contains(&name)
}

const READ_BY_THEM: [&str; 2] = [maps::SOCKETS_TCP, maps::SOCKETS_UDP];

/// Removes everything of this layout but [`SHOW_FRONTENDS`]. Returns one line per kind of thing removed.
pub(super) async fn withdraw(
    settings: &EbpfConfig,
    netlink: &Netlink,
    netns: &NetNs,
) -> Result<Vec<String>, EbpfError> {
    let link_dir = settings.link_dir();
    let detached = detach(&link_dir, shows_frontends)?;
    let filters = filters::detach_all(&link_dir, &interfaces(netlink).await?, netns).await?;
    let maps = unpin(&settings.pin_dir(), &READ_BY_THEM)?;
    Ok(lines(detached, filters, maps))
}

/// Removes the hooks of sockets but [`SHOW_FRONTENDS`]; what serves packets stays. Returns one line per kind of thing removed.
pub(super) fn leave_packets(settings: &EbpfConfig) -> Result<Vec<String>, EbpfError> {
    let stays = |name: &str| !name.starts_with("cgroup_") || shows_frontends(name);
    Ok(lines(detach(&settings.link_dir(), stays)?, 0, 0))
}

/// Removes what [`withdraw`] has left.
pub(super) fn remove_remains(settings: &EbpfConfig) -> Result<(), EbpfError> {
    detach(&settings.link_dir(), |_| false)?;
    remove(&settings.pin_dir())?;
    remove_root(&settings.bpffs_root, Path::new(BPFFS_ROOT));
    Ok(())
}

/// Whether there is something of a build with another layout.
pub(super) fn has_other_layout(settings: &EbpfConfig) -> Result<bool, EbpfError> {
    has_other_dir(&settings.bpffs_root, &settings.pin_dir())
}

/// Whether there is a layout below the root besides the one in that directory.
pub(super) fn has_other_dir(root: &Path, own: &Path) -> Result<bool, EbpfError> {
    Ok(layouts(root)?.iter().any(|dir| dir != own))
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
        let detached = detach(&link_dir, |_| false)?;
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

/// When a link goes, by its name: what translates on the way to a backend before what translates back, so that no answer
/// arrives that a program does not know.
fn turn(name: &str) -> u8 {
    let is = |part: &str| name.contains(part);
    if is("connect") || is("sendmsg") {
        0
    } else if !name.starts_with("cgroup_") && !name.ends_with("_out") {
        1
    } else {
        2
    }
}

/// Detaches pinned links but some and removes their pins; how many there were.
fn detach(link_dir: &Path, stays: impl Fn(&str) -> bool) -> Result<usize, EbpfError> {
    let mut detached = 0;
    let mut names = bpffs::list(link_dir)?;
    names.sort_by_key(|name| turn(name));
    for name in names {
        let pin = link_dir.join(&name);
        if pin.is_dir() || stays(&name) {
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
    let maps = unpin(dir, &[])?;
    remove_dir(dir)?;
    Ok(maps)
}

/// Removes the pins of maps but some; how many there were.
fn unpin(dir: &Path, but: &[&str]) -> Result<usize, EbpfError> {
    let mut maps = 0;
    for name in bpffs::list(dir)? {
        let pin = dir.join(&name);
        if !pin.is_dir() && !but.contains(&name.as_str()) {
            bpffs::unpin(&pin)?;
            maps += 1;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_data_plane_takes_our_root_away_and_no_other() {
        let top = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["seaway", "theirs"].map(|name| top.path().join(name));
        let [first, second] = ["first", "deep/second"].map(|name| ours.join(name));
        let elsewhere = theirs.join("third");
        for root in [&first, &second, &elsewhere] {
            fs::create_dir_all(root).unwrap();
        }
        let gone = |root: &Path| {
            remove_root(root, &ours);
            assert!(!root.exists());
        };
        gone(&elsewhere);
        assert!(theirs.exists(), "somebody else's");
        gone(&first);
        assert!(second.exists(), "somebody else's");
        gone(&second);
        assert!(!ours.exists(), "nothing is left in it");
        fs::create_dir(&ours).unwrap();
        gone(&ours);
    }

    #[test]
    fn what_translates_back_goes_last() {
        let mut names = [
            "cgroup_sock_connect4",
            "cgroup_sock_getpeername4",
            "cgroup_sock_recvmsg6",
            "cgroup_sock_sendmsg6",
            "tc_2_out",
            "tc_2_in",
            "xdp_2_driver",
        ];
        names.sort_by_key(|name| turn(name));
        assert_eq!(
            names,
            [
                "cgroup_sock_connect4",
                "cgroup_sock_sendmsg6",
                "tc_2_in",
                "xdp_2_driver",
                "cgroup_sock_getpeername4",
                "cgroup_sock_recvmsg6",
                "tc_2_out",
            ]
        );
    }
}
