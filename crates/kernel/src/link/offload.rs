//! What a link does in the place of others: whether it leaves checksums of what is sent to whoever comes after it (ethtool(8)
//! `tx-checksumming`), and takes packets together that come in (`generic-receive-offload`).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Error;

/// `SIOCETHTOOL` (linux/sockios.h).
const ETHTOOL: u64 = 0x8946;
/// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM` (linux/ethtool.h).
const GET: u32 = 0x16;
const SET: u32 = 0x17;
/// `ETHTOOL_GGRO` and `ETHTOOL_SGRO`.
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Asks and tells the links of one network namespace.
#[derive(Debug)]
pub struct Offload {
    socket: OwnedFd,
}

impl Offload {
    /// Of the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(|e| Error::io("open", "socket", e))?;
        Ok(Self { socket })
    }

    /// Whether checksums are left to the link.
    pub fn checksum(&self, link: &str) -> Result<bool, Error> {
        Ok(self.ask(link, "read the checksum offload of", GET, 0)? != 0)
    }

    /// Leaves checksums to the link, or computes them before. Without it there are no large segments either (TSO).
    pub fn set_checksum(&self, link: &str, on: bool) -> Result<(), Error> {
        self.ask(link, "set the checksum offload of", SET, on.into())
            .map(drop)
    }

    /// Whether the link takes packets together that come in.
    pub fn gro(&self, link: &str) -> Result<bool, Error> {
        Ok(self.ask(link, "read the receive offload of", GET_GRO, 0)? != 0)
    }

    /// Takes packets together that come in, or not. A veth that does gets what comes in polled, as a card.
    pub fn set_gro(&self, link: &str, on: bool) -> Result<(), Error> {
        self.ask(link, "set the receive offload of", SET_GRO, on.into())
            .map(drop)
    }

    #[expect(unsafe_code, reason = "this request has no safe wrapper")]
    fn ask(
        &self,
        link: &str,
        operation: &'static str,
        command: u32,
        data: u32,
    ) -> Result<u32, Error> {
        let object = || format!("link {link}");
        let mut value = Value { command, data };
        // SAFETY: all bits zero are a valid `ifreq`: a name without characters and a null pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let name = link.as_bytes();
        // The last byte stays 0.
        if name.len() >= request.ifr_name.len() {
            return Err(Error::Invalid {
                object: object(),
                reason: "the name is too long".into(),
            });
        }
        for (slot, byte) in request.ifr_name.iter_mut().zip(name) {
            *slot = *byte as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: `request` and the `value` it points to are live for the call; the kernel reads and writes one
        // `ethtool_value` for these commands, and keeps no pointer.
        let answer =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), ETHTOOL as _, &raw mut request) };
        if answer != 0 {
            return Err(Error::io(
                operation,
                object(),
                std::io::Error::last_os_error(),
            ));
        }
        Ok(value.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MacAddr, NetNs, Netlink};

    #[tokio::test]
    async fn a_tunnel_does_for_others_what_it_is_told() {
        let netns = NetNs::anonymous().unwrap();
        let netlink = Netlink::in_namespace(&netns).unwrap();
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        netlink
            .add_vxlan_external("vx.0", 8472, mac, 1450)
            .await
            .unwrap();
        let _inside = netns.enter().unwrap();
        let offload = Offload::open().unwrap();
        for on in [true, false, false, true] {
            offload.set_checksum("vx.0", on).unwrap();
            assert_eq!(offload.checksum("vx.0").unwrap(), on);
            offload.set_gro("vx.0", !on).unwrap();
            assert_eq!(offload.gro("vx.0").unwrap(), !on);
        }
        assert!(offload.checksum("absent").unwrap_err().is_absent());
        offload.checksum("a-name-that-is-too-long").unwrap_err();
    }
}
