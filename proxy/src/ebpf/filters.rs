//! Attaching by clsact filters, where the kernel has no tcx (before Linux 6.6). Filters outlive their process by
//! themselves; what has to be remembered is only which `clsact` qdiscs are ours, by empty directories among the pins.

use std::fs;
use std::path::Path;

use aya::programs::TcAttachType;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use seaway_ebpf_abi::programs;
use seaway_kernel::filter::Side;
use seaway_kernel::{BpfFilter, Command, NetNs, RouteSocket};

use super::bpffs;
use super::error::EbpfError;
use super::links::Direction;
use super::node::NodeLink;
use super::objects::Programs;

/// Of our filters; others keep theirs.
const PRIORITY: u16 = 0x5ea;
/// The same, of what comes first.
const FIRST: u16 = PRIORITY - 1;

/// The overlay's program of layout 2, whose filters may be there still.
const FORMER: &str = "from_overlay";

/// Prefix of the markers of qdiscs that we added.
const MARKER: &str = "clsact_";

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::First | Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// Attaches a program, or puts it in the place of the one that an earlier run attached.
pub(super) fn attach(
    dir: &Path,
    programs: &mut Programs,
    index: u32,
    link: &NodeLink,
    direction: Direction,
    name: &str,
) -> Result<(), EbpfError> {
    let failed = |error: &dyn std::error::Error| {
        EbpfError::load(format!("filter {name} at link {}", link.name), error)
    };
    match qdisc_add_clsact(&link.name) {
        Ok(()) => {
            let marker = dir.join(format!("{MARKER}{index}"));
            fs::create_dir_all(&marker).map_err(|e| EbpfError::file("create", &marker, e))?;
        }
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(nix::libc::EEXIST) => {}
        Err(error) => return Err(failed(&error)),
    }
    let priority = match direction {
        Direction::First => FIRST,
        Direction::Ingress | Direction::Egress => PRIORITY,
    };
    let direction = attach_type(direction);
    let handle = TcHandle::new(0, 1);
    let ours = SchedClassifierLink::attached(&link.name, direction, priority, handle, None)
        .map_err(|error| failed(&error))?;
    let program = programs.classifier(name)?;
    let attached = program.attach_to_link(ours).or_else(|_| {
        let options = TcAttachOptions::Netlink(NlOptions {
            priority,
            handle,
            classid: None,
        });
        program.attach_with_options(&link.name, direction, options)
    });
    let id = attached.map_err(|error| failed(&error))?;
    let kept = program.take_link(id).map_err(|error| failed(&error))?;
    // Dropped, it would detach; the filter has to outlive this process.
    std::mem::forget(kept);
    Ok(())
}

/// The filters of ours at links of that namespace, whoever attached them; none where the kernel has tcx.
pub(super) fn attached(netns: &NetNs) -> Result<Vec<BpfFilter>, EbpfError> {
    let mut filters = RouteSocket::in_namespace(netns)?.bpf_filters()?;
    filters.retain(|filter| [FIRST, PRIORITY].contains(&filter.priority));
    Ok(filters)
}

/// Whether one of them is this program at that place.
pub(super) fn has(filters: &[BpfFilter], index: u32, direction: Direction, name: &str) -> bool {
    filters.iter().any(|filter| {
        (filter.link, filter.side, filter.name.as_str()) == (index, side(direction), name)
    })
}

fn side(direction: Direction) -> Side {
    match direction {
        Direction::First | Direction::Ingress => Side::Ingress,
        Direction::Egress => Side::Egress,
    }
}

/// Takes over the memory of which qdiscs are ours.
pub(super) fn inherit(from: &Path, to: &Path) -> Result<(), EbpfError> {
    for name in bpffs::list(from)? {
        if name.starts_with(MARKER) {
            let (old, new) = (from.join(&name), to.join(&name));
            fs::create_dir_all(&new).map_err(|e| EbpfError::file("create", &new, e))?;
            fs::remove_dir(&old).map_err(|e| EbpfError::file("remove", &old, e))?;
        }
    }
    Ok(())
}

/// Removes our filters from these links, and the qdiscs that we added. Returns how many filters there were.
pub(super) async fn detach_all(
    dir: &Path,
    links: &[(u32, String)],
    netns: &NetNs,
) -> Result<usize, EbpfError> {
    let removed = {
        let _inside = netns.enter()?;
        links.iter().map(|(_, link)| detach(link)).sum()
    };
    for marker in bpffs::list(dir)? {
        let Some(index) = marker.strip_prefix(MARKER) else {
            continue;
        };
        if let Some((_, link)) = links.iter().find(|(i, _)| i.to_string() == index) {
            Command::new("tc")
                .args(["qdisc", "del", "dev", link, "clsact"])
                .netns(netns)
                .output()
                .await
                .map_err(|error| EbpfError::load(format!("clsact qdisc of {link}"), &error))?;
        }
        let marker = dir.join(&marker);
        fs::remove_dir(&marker).map_err(|e| EbpfError::file("remove", &marker, e))?;
    }
    Ok(removed)
}

/// Removes our filters from a link.
fn detach(link: &str) -> usize {
    let mut removed = 0;
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        for name in programs::CLASSIFIERS.into_iter().chain([FORMER]) {
            // An error means that there is no such filter, no clsact qdisc, or no such link any more.
            removed += usize::from(qdisc_detach_program(link, direction, name).is_ok());
        }
    }
    removed
}
