//! All network namespaces of the machine, and what the kernel calls each of them.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::{NAMED, NetNs};
use crate::Error;

/// Where container runtimes name them: containerd, CRI-O and `ip netns`; Docker.
const DIRECTORIES: [&str; 2] = [NAMED, "/run/docker/netns"];

/// `SO_NETNS_COOKIE` (Linux 5.14), which libc does not name.
const SO_NETNS_COOKIE: libc::c_int = 71;

impl NetNs {
    /// The kernel's number of the namespace, as `bpf_get_netns_cookie` gives it; never used twice before a reboot.
    pub fn cookie(&self) -> Result<u64, Error> {
        let failed = |cause| Error::io("read the cookie of", self.to_string(), cause);
        let _inside = self.enter()?;
        let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
        read_cookie(&any).map_err(failed)
    }

    /// Gives `each` the namespaces that have a name, then those that only processes are in, each once, until it breaks.
    /// What goes meanwhile is left out.
    pub fn visit_all(mut each: impl FnMut(Self) -> ControlFlow<()>) {
        for place in places() {
            if let Ok(netns) = Self::open(&place.path)
                && each(netns).is_break()
            {
                return;
            }
        }
    }

    /// Whether it is the one that is found there.
    pub fn is_at(&self, place: &Place) -> Result<bool, Error> {
        Ok(self.identity()? == (place.device, place.inode))
    }
}

/// Where a network namespace is found. The same place may be another namespace later; but its path and number are not
/// both used again soon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// As [`NetNs::identity`].
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// The namespaces that have a name, then those that only processes are in, each once. None is opened.
pub fn places() -> impl Iterator<Item = Place> {
    let named = DIRECTORIES
        .iter()
        .flat_map(|dir| entries(Path::new(dir)).map(|entry| entry.path()));
    let is_process = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    };
    let of_processes = entries(Path::new("/proc"))
        .filter(is_process)
        .map(|entry| entry.path().join("ns/net"));
    let mut seen = HashSet::new();
    named.chain(of_processes).filter_map(move |path| {
        let status = fs::metadata(&path).ok()?;
        let (device, inode) = (status.dev(), status.ino());
        let place = Place {
            path,
            device,
            inode,
        };
        seen.insert((device, inode)).then_some(place)
    })
}

fn entries(dir: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(dir).into_iter().flatten().flatten()
}

#[expect(unsafe_code, reason = "nix does not know the option")]
fn read_cookie(socket: &UdpSocket) -> std::io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option's value is a u64, and `len` says so.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    match result {
        0 => Ok(cookie),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_with_and_without_a_name_are_found_once() {
        let name = format!("seaway-visit-{}", std::process::id());
        let named = NetNs::create(&name).unwrap();
        let own = NetNs::current().unwrap();
        let (mut named_seen, mut own_seen) = (0, 0);
        NetNs::visit_all(|netns| {
            named_seen += usize::from(netns.is_same(&named).unwrap());
            own_seen += usize::from(netns.is_same(&own).unwrap());
            ControlFlow::Continue(())
        });
        let mut visits = 0;
        NetNs::visit_all(|_| {
            visits += 1;
            ControlFlow::Break(())
        });
        let cookies = [named.cookie().unwrap(), own.cookie().unwrap()];
        NetNs::delete(&name).unwrap();
        assert_eq!((named_seen, own_seen, visits), (1, 1, 1));
        assert_ne!(cookies[0], cookies[1]);
        assert_eq!(cookies[1], own.cookie().unwrap());
    }
}
