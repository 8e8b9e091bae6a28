//! The number that every change of nf_tables rules raises.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN` (linux/netfilter/nf_tables.h).
const GET_GENERATION: u16 = (10 << 8) | 16;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;

/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 20;

/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;

/// Asks for the generation of the nf_tables rules of one network namespace.
#[derive(Debug)]
pub(super) struct Generation {
    socket: OwnedFd,
}

impl Generation {
    /// Of the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, Errno> {
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
    pub(super) fn now(&self) -> Result<Option<u32>, Errno> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_found_in_the_kernels_answer() {
        let mut message = vec![0_u8; HEADERS];
        // NFTA_GEN_PROC_NAME first: odd length, padded.
        message.extend([7, 0, 3, 0, b'n', b'f', b't', 0]);
        message.extend([8, 0, 1, 0, 0, 0, 1, 2]);
        assert_eq!(read_generation(&message), Some(258));
    }

    #[test]
    fn a_short_or_broken_answer_has_none() {
        for tail in [
            &[][..],
            &[0, 0, 1, 0],
            &[3, 0, 1, 0, 0],
            &[8, 0, 1, 0, 0, 0],
            &[255, 255, 1, 0],
            &[4, 0, 9, 0],
        ] {
            let mut message = vec![0_u8; HEADERS];
            message.extend(tail);
            assert_eq!(read_generation(&message), None, "{tail:?}");
        }
        assert_eq!(read_generation(&[0; 4]), None);
    }
}
