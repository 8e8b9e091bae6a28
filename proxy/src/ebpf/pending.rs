//! What has to be loaded and attached before map entries have any effect, from what is pinned and from filters.

use std::fs;
use std::os::unix::fs::MetadataExt;

use seaway_ebpf_abi::programs;
use seaway_kernel::BpfFilter;

use super::config::EbpfConfig;
use super::error::EbpfError;
use super::filters;
use super::links::{existing, programs_of};
use super::node::NodeView;
use super::sys::LinkTarget;
use super::tables::Tables;

/// In words, one line each; nothing if all of it is there. `filters` are those of ours, which leave no pins.
pub(super) fn pending(
    settings: &EbpfConfig,
    view: &NodeView,
    filters: &[BpfFilter],
) -> Result<Vec<String>, EbpfError> {
    let mut lines = Vec::new();
    if Tables::open(&settings.pin_dir())?.is_none() {
        let dir = settings.pin_dir();
        lines.push(format!(
            "load the programs, maps pinned in {}",
            dir.display()
        ));
    }
    let root = &settings.cgroup_root;
    let cgroup = fs::metadata(root).map_err(|error| EbpfError::file("open", root, error))?;
    let is_at = |pin: String, target| {
        let found = existing(&settings.link_dir().join(pin))?;
        Ok::<_, EbpfError>(found.is_some_and(|(_, info)| info.target == target))
    };
    for name in programs::SOCKET {
        // A cgroup's id is the inode of its directory.
        if !is_at(format!("cgroup_{name}"), LinkTarget::Cgroup(cgroup.ino()))? {
            lines.push(format!("attach socket hooks to {}", root.display()));
            break;
        }
    }
    for (index, link) in &view.links {
        for (direction, program) in programs_of(link) {
            let pin = format!("tc_{index}_{}", direction.suffix());
            if !filters::has(filters, *index, direction, program)
                && !is_at(pin, LinkTarget::Interface(*index))?
            {
                lines.push(format!("attach to {} ({})", link.name, link.role));
                break;
            }
        }
    }
    Ok(lines)
}
