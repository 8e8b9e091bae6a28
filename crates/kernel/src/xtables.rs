//! How big a table of legacy iptables is, without reading it.
//!
//! The legacy interface has no change notification and no generation number. It has `IPT_SO_GET_INFO`
//! (linux/netfilter_ipv4/ip_tables.h), which costs one system call whatever the size of the table: enough to notice
//! most of what others do to it.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Error;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;

/// `XT_TABLE_MAXNAMELEN`.
const NAME_LENGTH: usize = 32;

/// `struct ipt_getinfo`, the same for both families.
#[repr(C)]
#[derive(Clone, Copy)]
struct GetInfo {
    name: [u8; NAME_LENGTH],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// What the kernel says of one table. Two equal answers do not prove that the table is the same, two different ones
/// prove that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// Rules, chain heads and policies.
    pub entries: u32,
    pub bytes: u32,
    /// Where the built-in chains begin: what goes into one and out of another shows here.
    pub hooks: [u32; 5],
}

/// Asks for the tables of one network namespace and one family.
#[derive(Debug)]
pub struct LegacyTables {
    socket: OwnedFd,
    level: libc::c_int,
}

impl LegacyTables {
    /// Of the calling thread's network namespace. Needs `CAP_NET_RAW`, and `CAP_NET_ADMIN` to ask.
    pub fn open(ipv6: bool) -> Result<Self, Error> {
        let (family, level) = if ipv6 {
            (AddressFamily::Inet6, libc::SOL_IPV6)
        } else {
            (AddressFamily::Inet, libc::SOL_IP)
        };
        // Raw, as iptables itself has it: other sockets of IPv6 do not answer.
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, RAW)
            .map_err(|e| Error::io("open", "raw socket", e))?;
        Ok(Self { socket, level })
    }

    /// The size of a table. The kernel makes an empty one if there is none: ask only for tables that are in use.
    #[expect(unsafe_code, reason = "this socket option has no safe wrapper")]
    pub fn size(&self, table: &str) -> Result<TableSize, Error> {
        let mut info = GetInfo {
            name: [0; NAME_LENGTH],
            valid_hooks: 0,
            hook_entry: [0; 5],
            underflow: [0; 5],
            num_entries: 0,
            size: 0,
        };
        // The last byte stays 0, as the kernel demands.
        let length = table.len().min(NAME_LENGTH - 1);
        info.name[..length].copy_from_slice(&table.as_bytes()[..length]);
        let mut size = size_of::<GetInfo>() as libc::socklen_t;
        // SAFETY: `info` is a live `repr(C)` value of `size` bytes for which every bit pattern is valid; the kernel
        // writes at most `size` bytes into it and keeps no pointer.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                self.level,
                GET_INFO,
                (&raw mut info).cast(),
                &raw mut size,
            )
        };
        if answer != 0 {
            let cause = std::io::Error::last_os_error();
            return Err(Error::io(
                "ask for",
                format!("iptables table {table}"),
                cause,
            ));
        }
        Ok(TableSize {
            entries: info.num_entries,
            bytes: info.size,
            hooks: info.hook_entry,
        })
    }
}

/// `IPPROTO_RAW`: nothing is ever received.
const RAW: Option<nix::sys::socket::SockProtocol> = Some(nix::sys::socket::SockProtocol::Raw);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetNs;

    #[test]
    fn a_fresh_namespace_has_policies_only() {
        let netns = NetNs::anonymous().unwrap();
        netns
            .run(|| {
                for ipv6 in [false, true] {
                    let tables = LegacyTables::open(ipv6).unwrap();
                    let filter = tables.size("filter").unwrap();
                    // INPUT, FORWARD, OUTPUT and the end.
                    assert_eq!(filter.entries, 4);
                    assert_eq!(tables.size("filter").unwrap(), filter);
                    assert!(tables.size("no-such-table").unwrap_err().is_absent());
                }
            })
            .unwrap();
    }
}
