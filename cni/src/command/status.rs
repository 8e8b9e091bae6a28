//! STATUS: could an ADD be served now? Asked every few seconds, so it only reads.

use std::collections::BTreeMap;

use seaway_kernel::Netlink;

use super::since_boot;
use crate::ipam::{Ledger, pool};
use crate::node::NodeFile;
use crate::protocol::{Code, Error, NetworkConfig, Version};

pub(super) async fn status(config: &NetworkConfig) -> Result<(), Error> {
    config.version.at_least(Version::V1_1_0, "STATUS")?;
    let node = NodeFile::read(&config.run_dir).map_err(|e| Error {
        code: Code::NotAvailable,
        ..e
    })?;
    let up = Netlink::new()?
        .link(&node.vxlan_link)
        .await?
        .is_some_and(|link| link.up);
    if !up {
        return Err(unavailable(format!(
            "link {} is missing or down; seaway-overlay sets it up",
            node.vxlan_link
        )));
    }
    let states: BTreeMap<_, _> = Ledger::open(&config.state_dir, &config.name)?
        .entries()?
        .iter()
        .map(|entry| (entry.address, entry.state()))
        .collect();
    let now = since_boot()?;
    for &range in &node.pod_cidrs {
        if pool::next(range, &states, None, now).is_none() {
            return Err(unavailable(format!("no address is left in {range}")));
        }
    }
    Ok(())
}

fn unavailable(message: String) -> Error {
    Error::new(Code::NotAvailable, message)
}
