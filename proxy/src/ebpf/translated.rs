//! What connection tracking translates, of the protocols that the programs carry.

use seaway_ebpf_abi::{TCP, UDP};
use seaway_kernel::conntrack::{Conntrack, Family, Filter, Flow, Status};

use super::error::EbpfError;

/// Lists all of it, a portion at a time.
///
/// # Errors
///
/// If the kernel does not list it.
pub(super) fn list(
    conntrack: &mut Conntrack,
    mut take: impl FnMut(&[Flow]),
) -> Result<(), EbpfError> {
    for family in [Family::V4, Family::V6] {
        for protocol in [TCP, UDP] {
            let translated = Filter {
                status: Status::DESTINATION_NAT,
                ..Filter::new(family, protocol)
            };
            conntrack.list(&translated, &mut take)?;
        }
    }
    Ok(())
}
