//! Links whose other end is a file.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::libc;

use crate::Error;

const TUN: &str = "/dev/net/tun";
/// `TUNSETIFF`, `IFF_TUN` and `IFF_NO_PI` (linux/if_tun.h).
const SET: u64 = 0x4004_54ca;
const PLAIN: u16 = 0x0001 | 0x1000;

/// `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    pad: [u8; 22],
}

/// Makes a link without Ethernet header ([`Framing::None`](super::Framing)) in the calling thread's network namespace. Each read from the file is a packet
/// that leaves by it, each write one that comes in; the link goes with the last of its files.
///
/// # Errors
///
/// If the kernel has no such links, or the name is too long or taken.
#[expect(unsafe_code, reason = "this request has no safe wrapper")]
pub fn open_tun(name: &str) -> Result<File, Error> {
    let failed = |error| Error::io("make a tun", name.to_owned(), error);
    let file = File::options()
        .read(true)
        .write(true)
        .open(TUN)
        .map_err(failed)?;
    let mut request = Request {
        name: [0; 16],
        flags: PLAIN,
        pad: [0; 22],
    };
    let room = request
        .name
        .get_mut(..name.len())
        .filter(|room| room.len() < 16);
    room.ok_or_else(|| failed(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG)))?
        .copy_from_slice(name.as_bytes());
    // SAFETY: a structure as the kernel has it, which outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), SET, &raw mut request) } < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    Ok(file)
}
