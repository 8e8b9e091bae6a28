//! STATUS: could an ADD be served now? Asked every few seconds, so it only reads.

use seaway_kernel::RouteSocket;

use super::{Call, since_boot};
use crate::ipam::Source;
use crate::node::NodeFile;
use crate::personality::Personality;
use crate::protocol::{Code, Error, Ipam, RuntimeConfig, Verb, Version};

impl Call {
    pub(super) fn status(&self) -> Result<(), Error> {
        self.config.version.at_least(Version::V1_1_0, "STATUS")?;
        if self.personality == Personality::Seaway && matches!(self.config.ipam()?, Ipam::Node(_)) {
            self.overlay()?;
        }
        if self.config.ipam()?.awaits_ranges() {
            return Ok(());
        }
        if let Some(source) = Source::new(&self.config, &RuntimeConfig::default())?
            && let Some(ranges) = source.exhausted(since_boot()?)?
        {
            return Err(unavailable(format!("no address is left in {ranges}")));
        }
        match self.delegate()? {
            Some(delegate) => delegate.call(Verb::Status).map(drop),
            None => Ok(()),
        }
    }

    /// Pods with addresses of the node reach other nodes through the overlay. Without its device those that are there are
    /// cut off, too.
    fn overlay(&self) -> Result<(), Error> {
        let node = NodeFile::read(&self.config.run_dir).map_err(|e| Error {
            code: Code::NotAvailable,
            ..e
        })?;
        let link = RouteSocket::open()?.link(&node.vxlan_link)?;
        if link.is_some_and(|link| link.up) {
            return Ok(());
        }
        let message = format!(
            "link {} is missing or down; seaway-overlay sets it up",
            node.vxlan_link
        );
        Err(Error::new(Code::Limited, message))
    }
}

fn unavailable(message: String) -> Error {
    Error::new(Code::NotAvailable, message)
}
