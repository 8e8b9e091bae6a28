//! GC: removes what belongs to attachments that the runtime no longer knows.

use seaway_kernel::Netlink;

use super::since_boot;
use crate::attachment::Attachment;
use crate::ipam::Ledger;
use crate::protocol::{Attachments, Code, Error, NetworkConfig, OwnerKey, Version};
use crate::{apply, plan};

/// Everything of this network whose owner is not in the list goes: interface and address. An absent list says nothing,
/// so it is refused.
pub(super) async fn gc(config: &NetworkConfig) -> Result<(), Error> {
    config.version.at_least(Version::V1_1_0, "GC")?;
    let Attachments::Valid(valid) = &config.attachments else {
        return Err(Error::new(
            Code::InvalidConfig,
            "GC needs cni.dev/valid-attachments; without it nothing is removed",
        ));
    };
    let ledger = Ledger::open(&config.state_dir, &config.name)?;
    let gone: Vec<_> = ledger
        .entries()?
        .iter()
        .filter_map(|entry| entry.owner().cloned())
        .filter(|owner| !valid.contains(owner))
        .collect();
    release_all(&ledger, &gone).await
}

/// Removes the interfaces and frees the addresses of these attachments. One failure does not stop the others; all are
/// reported.
pub async fn release_all(ledger: &Ledger, owners: &[OwnerKey]) -> Result<(), Error> {
    let netlink = Netlink::new()?;
    let now = since_boot()?;
    let mut failures = Vec::new();
    for owner in owners {
        let attachment = Attachment::new(owner, Vec::new(), 0, None);
        match apply::undo(&netlink, &plan::del(&attachment)).await {
            Ok(()) => {
                if let Err(error) = ledger.release(owner, now) {
                    failures.push(error.to_string());
                }
            }
            Err(error) => failures.push(error.message),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::Kernel, failures.join("; ")))
}
