//! DEL: takes away whatever is there of an attachment.

use std::path::Path;

use seaway_kernel::{NetNs, RouteSocket};

use super::{Call, since_boot};
use crate::apply;
use crate::attachment::{host_link, shaping_link, table};
use crate::ipam::{Ledger, Source};
use crate::personality::Personality;
use crate::ports;
use crate::protocol::{Error, Verb};

impl Call {
    /// Needs neither the namespace nor a previous result, and looks at no part of the config but where addresses are
    /// from: runtimes call it after a failed ADD, twice, and with the namespace gone. The link goes first, so that an
    /// address is never free while something still answers to it.
    pub(super) fn del(&self) -> Result<(), Error> {
        if self.personality != Personality::HostLocal {
            // What cannot be opened is gone: the path may still be there as the empty file that was mounted over.
            let owner = self.owner();
            if let Ok(pod) = NetNs::open(Path::new(&self.invocation.netns)) {
                self.refuse_own(&pod)?;
                apply::undo_rules(&pod, table(&owner))?;
            }
            let ports = ports::remove(&self.tag())?;
            let mut host = RouteSocket::open()?;
            // The interface may still be there: the address stays reserved, and the runtime tries again.
            apply::undo(&mut host, &host_link(&owner), Some(&shaping_link(&owner)))?;
            ports.finish()?;
        }
        self.release()
    }

    /// Frees the addresses, ours or another plugin's.
    pub(super) fn release(&self) -> Result<(), Error> {
        let root = Source::root_of(&self.config);
        if let Some(ledger) = Ledger::open_existing(&root, &self.config.name)? {
            ledger.release(&self.owner(), since_boot()?)?;
        }
        match self.delegate()? {
            Some(delegate) => delegate.call(Verb::Del).map(drop),
            None => Ok(()),
        }
    }
}
