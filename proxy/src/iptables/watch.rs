//! Noticing that somebody else has changed the tables.
//!
//! The nft variant has a generation number that every change raises; asking for it is one netlink message, so the
//! rules themselves are read only when the number says that they may differ. The legacy variant says how many rules
//! its tables have, which a flush, an insertion or a deletion changes; for the rest it is read at intervals that keep
//! the cost at a few percent.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use seaway_kernel::capabilities::IptablesVariant;
use seaway_kernel::{LegacyTables, TableSize};
use seaway_model::Family;
use tokio::time::Instant;

use super::fixed;
use super::plan::Chains;
use super::rule::{ChainId, Table};

#[cfg(test)]
mod tests;

/// How often we ask whether anything has changed: one message or a few system calls.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Shortest pause between two looks at the rules themselves.
pub const PAUSE: Duration = Duration::from_millis(500);

/// A look that takes long is repeated less often: it may take this part of the time at most.
const IDLE_PER_WORK: u32 = 40;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN` (linux/netfilter/nf_tables.h).
const GET_GENERATION: u16 = (10 << 8) | 16;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;

/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 20;

/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;

/// How long to wait after a look that took `took`.
pub fn pause(took: Duration) -> Duration {
    PAUSE.max(took * IDLE_PER_WORK)
}

/// What changes when the rules change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// Of the nft variant: two equal ones are the same rules.
    Generation(u32),
    /// Of the legacy variant: the sizes of the tables. A rule that was put in place of another of the same size does
    /// not show.
    Sizes(Vec<TableSize>),
}

/// Decides when to look at the rules.
#[derive(Debug, Default)]
pub struct Watcher {
    source: Option<Source>,
    /// Of the rules that the image describes, if it is known.
    known: Option<Stamp>,
    /// Next time to ask for the stamp.
    next_poll: Option<Instant>,
    /// After a change that was none of ours, not before this.
    not_before: Option<Instant>,
    /// An equal stamp that proves nothing: look all the same, but then.
    next_audit: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    NfTables(Generation),
    Legacy(Vec<LegacyTables>),
}

impl Watcher {
    /// The stamp now; `None` where the kernel does not say.
    pub fn stamp(&mut self, variant: IptablesVariant, families: &[Family]) -> Option<Stamp> {
        if self.source.is_none() {
            self.source = match variant {
                IptablesVariant::NfTables => Generation::open().ok().map(Source::NfTables),
                IptablesVariant::Legacy => {
                    let open = |family: &Family| LegacyTables::open(*family == Family::V6).ok();
                    let tables: Vec<_> = families.iter().filter_map(open).collect();
                    (tables.len() == families.len()).then_some(Source::Legacy(tables))
                }
            };
        }
        match self.source.as_ref()? {
            Source::NfTables(generation) => generation.now().ok().flatten().map(Stamp::Generation),
            Source::Legacy(families) => {
                let sizes = families
                    .iter()
                    .flat_map(|tables| Table::ALL.map(|table| tables.size(table.as_str()).ok()));
                sizes.collect::<Option<_>>().map(Stamp::Sizes)
            }
        }
    }

    /// Forgets which variant it was.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The image describes the rules of this stamp.
    pub fn set_known(&mut self, stamp: Option<Stamp>) {
        self.known = stamp;
    }

    /// We have changed the rules ourselves, between two stamps, in so many commits. If nobody else did meanwhile, the
    /// image still describes them.
    pub fn changed_by_us(&mut self, before: Option<Stamp>, after: Option<Stamp>, commits: u32) {
        if before.is_none() || before != self.known {
            return;
        }
        match (before, after) {
            (Some(Stamp::Generation(before)), Some(Stamp::Generation(after)))
                if before.wrapping_add(commits) == after =>
            {
                self.known = Some(Stamp::Generation(after));
            }
            (Some(Stamp::Sizes(_)), Some(after @ Stamp::Sizes(_))) => self.known = Some(after),
            _ => {}
        }
    }

    /// Waits until the next stamp is due. Cancel-safe, and goes on where it was when cancelled.
    pub async fn tick(&mut self) {
        let now = Instant::now();
        let due = *self.next_poll.get_or_insert(now + INTERVAL);
        tokio::time::sleep_until(due).await;
        self.next_poll = Some(Instant::now() + INTERVAL);
    }

    /// Whether to look at the rules now that the stamp is this.
    pub fn is_due(&self, stamp: Option<&Stamp>) -> bool {
        let now = Instant::now();
        let reached = |time: Option<Instant>| time.is_none_or(|time| time <= now);
        match stamp {
            Some(stamp) if Some(stamp) == self.known.as_ref() => {
                matches!(stamp, Stamp::Sizes(_)) && reached(self.next_audit)
            }
            _ => reached(self.not_before),
        }
    }

    /// A look that began at `stamp` and took so long has found nothing amiss.
    pub fn looked(&mut self, stamp: Option<Stamp>, took: Duration) {
        let next = Some(Instant::now() + pause(took));
        if stamp.is_none() || stamp != self.known {
            self.not_before = next;
        }
        self.next_audit = next;
        self.known = stamp;
    }
}

/// Asks for the generation of the nf_tables rules of one network namespace.
#[derive(Debug)]
pub struct Generation {
    socket: OwnedFd,
}

impl Generation {
    /// Of the calling thread's network namespace.
    pub fn open() -> Result<Self, Errno> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        // The kernel answers within the call; this is for the day when it does not.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(1, 0))?;
        Ok(Self { socket })
    }

    /// The number now; `None` when the kernel's answer has none.
    pub fn now(&self) -> Result<Option<u32>, Errno> {
        let fd = self.socket.as_raw_fd();
        send(fd, &request(), MsgFlags::empty())?;
        let mut answer = [0; 512];
        let length = recv(fd, &mut answer, MsgFlags::empty())?;
        Ok(read_generation(&answer[..length.min(answer.len())]))
    }
}

fn request() -> Vec<u8> {
    let length: u32 = 20;
    let mut message = Vec::with_capacity(HEADERS);
    message.extend(length.to_ne_bytes());
    message.extend(GET_GENERATION.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and port number: one request at a time, the kernel fills the port in.
    message.extend([0; 8]);
    // Family, version, resource.
    message.extend([0; 4]);
    message
}

/// Finds the attribute in the kernel's answer.
fn read_generation(message: &[u8]) -> Option<u32> {
    let mut rest = message.get(HEADERS..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == GENERATION_ID {
            return Some(u32::from_be_bytes(value.try_into().ok()?));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// What differs between what we wrote and what is there, in one sentence; `None` if nothing of ours does.
pub fn difference(image: &Chains, actual: &Chains) -> Option<String> {
    let ids: BTreeSet<&ChainId> = image.keys().chain(actual.keys()).collect();
    let mut differences = ids
        .into_iter()
        .filter(|id| id.name.is_ours() || fixed::is_built_in(id))
        .filter_map(|id| {
            let what = match (image.get(id), actual.get(id)) {
                (Some(wanted), Some(found)) if wanted == found => return None,
                (Some(_), Some(_)) => "was changed",
                (Some(_), None) if id.name.is_ours() => "is gone",
                (Some(_), None) => "has lost its jump to our chains",
                (None, _) => "was added",
            };
            Some(format!(
                "chain {} of table {} {what}",
                id.name,
                id.table.as_str()
            ))
        });
    let first = differences.next()?;
    Some(match differences.count() {
        0 => first,
        more => format!("{first}, and {more} other chains"),
    })
}
