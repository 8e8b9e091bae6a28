//! Noticing that somebody else has changed the tables.
//!
//! The nft variant has a generation number that every change raises; asking for it is one netlink message, so the
//! rules themselves are read only when the number says that they may differ. The legacy variant has nothing of the
//! kind: it is read at intervals that keep the cost at a few percent.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::fixed;
use super::plan::Chains;
use super::rule::ChainId;

#[cfg(test)]
mod tests;

/// How often we look.
pub const INTERVAL: Duration = Duration::from_secs(1);

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
    INTERVAL.max(took * IDLE_PER_WORK)
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
