//! GC: removes what belongs to attachments that the runtime no longer knows.

use std::collections::BTreeSet;

use seaway_kernel::{Batch, RouteSocket};
use seaway_model::ownership::{POD_LINK_PREFIX, SHAPING_LINK_PREFIX, is_shaping_link};

use super::{Call, since_boot};
use crate::apply;
use crate::attachment::digits;
use crate::ipam::{Entry, Ledger, Source};
use crate::personality::Personality;
use crate::ports::{self, Removed};
use crate::protocol::{Attachments, Code, Error, Verb, Version};

impl Call {
    /// Everything of this network whose owner is not in the list goes: interface, host ports, address. An absent list
    /// says nothing, so it is refused. One failure does not stop the rest; all are reported.
    pub(super) fn gc(&self) -> Result<(), Error> {
        self.config.version.at_least(Version::V1_1_0, "GC")?;
        let Attachments::Valid(valid) = self.config.attachments()? else {
            return Err(Error::new(
                Code::InvalidConfig,
                "GC needs cni.dev/valid-attachments; without it nothing is removed",
            ));
        };
        let valid: BTreeSet<_> = valid.iter().map(digits).collect();
        let mut failures = Vec::new();
        let mut note = |done: Result<(), Error>| failures.extend(done.err());
        let mut removed = Ok(None);
        if self.personality != Personality::HostLocal {
            removed = ports::remove_unless(&self.config.name, &valid).map(Some);
        }
        note(self.sweep(&valid));
        if self.personality != Personality::HostLocal {
            note(abandoned(&valid));
        }
        note(removed.and_then(|removed| removed.map_or(Ok(()), Removed::finish)));
        match self.delegate() {
            Ok(Some(delegate)) => note(delegate.call(Verb::Gc).map(drop)),
            Ok(None) => {}
            Err(error) => note(Err(error)),
        }
        together(failures)
    }

    fn sweep(&self, valid: &BTreeSet<String>) -> Result<(), Error> {
        let root = Source::root_of(&self.config);
        let Some(ledger) = Ledger::open_existing(&root, &self.config.name)? else {
            return Ok(());
        };
        let gone: BTreeSet<_> = ledger
            .entries()?
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::InUse { owner, .. } if !valid.contains(&owner) => Some(owner),
                _ => None,
            })
            .collect();
        release_all(&ledger, &gone, self.personality != Personality::HostLocal)
    }
}

/// Removes devices by which nobody is limited any more, of whatever network: behind another plugin the pair is that one's, and
/// the ledger knows nothing of the pod. One that is not up yet is that of an ADD.
fn abandoned(valid: &BTreeSet<String>) -> Result<(), Error> {
    let mut host = RouteSocket::open()?;
    let links = host.links()?;
    let devices = links.iter().filter(|link| {
        let digits = link.name.strip_prefix(SHAPING_LINK_PREFIX);
        is_shaping_link(&link.name) && link.up && !digits.is_some_and(|d| valid.contains(d))
    });
    let devices: Vec<_> = devices.collect();
    if devices.is_empty() {
        return Ok(());
    }
    let mut used = BTreeSet::new();
    for end in host.queued_links()? {
        used.extend(host.redirection_of(end)?);
    }
    let mut batch = Batch::default();
    for device in devices
        .iter()
        .filter(|device| !used.contains(&device.index))
    {
        batch.delete_link(&device.name);
    }
    Ok(host.apply(&batch)?)
}

/// Frees the addresses of these attachments (by their digits), and removes their interfaces, if they are ours. One
/// failure does not stop the others; all are reported.
pub fn release_all(
    ledger: &Ledger,
    gone: &BTreeSet<String>,
    interfaces: bool,
) -> Result<(), Error> {
    let mut host = RouteSocket::open()?;
    let now = since_boot()?;
    let mut failures = Vec::new();
    for digits in gone {
        let link = format!("{POD_LINK_PREFIX}{digits}");
        let device = format!("{SHAPING_LINK_PREFIX}{digits}");
        let unlinked = if interfaces {
            apply::undo(&mut host, &link, Some(&device))
        } else {
            Ok(())
        };
        let freed = unlinked.and_then(|()| Ok(ledger.release_digits(digits, now)?));
        failures.extend(freed.err());
    }
    together(failures)
}

fn together(failures: Vec<Error>) -> Result<(), Error> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return Ok(());
    };
    let rest: Vec<_> = failures.map(|error| error.message).collect();
    if rest.is_empty() {
        return Err(first);
    }
    let message = format!("{}; {}", first.message, rest.join("; "));
    Err(Error::new(first.code, message))
}
