//! A wire that is carried by hand, frame by frame, and so has the faults that are asked for.
//!
//! What a veth pair passes on as "the checksum is made later" arrives here as bytes, with the checksum not made. The wire makes it
//! as a network card does, or forgets it inside of tunnels, as some do: that is what [`Faults::checksums`] is about.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use seaway_kernel::NetNs;

/// What is wrong with the wire.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Checksums of packets inside of a tunnel that the sender left to the card are never made. Otherwise the links of the nodes have
    /// no such offload.
    pub(crate) checksums: bool,
    /// Longer IP packets are lost.
    pub(crate) mtu: Option<usize>,
}

/// Carries until it is dropped.
pub(crate) struct Carrier {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    /// Between the two links of a namespace.
    pub(crate) fn start(netns: NetNs, faults: Faults) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let ends = netns.run(|| ["left", "right"].map(packet_socket)).unwrap();
        let thread = std::thread::spawn(move || {
            // The links live as long as their namespace.
            let _netns = netns;
            while !seen.load(Ordering::Relaxed) {
                let mut fds: Vec<_> = ends
                    .iter()
                    .map(|end| PollFd::new(std::os::fd::AsFd::as_fd(end), PollFlags::POLLIN))
                    .collect();
                poll(
                    &mut fds,
                    PollTimeout::try_from(Duration::from_millis(50)).unwrap(),
                )
                .unwrap();
                for (from, to) in [(0, 1), (1, 0)] {
                    carry(&ends[from], &ends[to], faults);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All that is there now.
#[expect(
    unsafe_code,
    reason = "the flags that tell which frames are our own have no safe wrapper"
)]
fn carry(from: &OwnedFd, to: &OwnedFd, faults: Faults) {
    let mut buffer = [0u8; 70_000];
    loop {
        // SAFETY: zeroed is a valid `sockaddr_ll`.
        let mut sender: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: buffer and address are live and as long as said.
        let length = unsafe {
            libc::recvfrom(
                from.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut sender).cast(),
                &raw mut size,
            )
        };
        let Ok(length) = usize::try_from(length) else {
            return;
        };
        // What this side sent itself.
        if sender.sll_pkttype == libc::PACKET_OUTGOING || length < TOLD + ETHERNET {
            continue;
        }
        if faults.mtu.is_some_and(|mtu| length - TOLD - ETHERNET > mtu) {
            continue;
        }
        let (told, frame) = buffer[..length].split_at_mut(TOLD);
        make_checksum(told, frame);
        told.fill(0);
        let _ = nix::sys::socket::send(
            to.as_raw_fd(),
            &buffer[..length],
            nix::sys::socket::MsgFlags::empty(),
        );
    }
}

/// `struct virtio_net_hdr`, which the kernel puts before a frame (`PACKET_VNET_HDR`).
const TOLD: usize = 10;
const ETHERNET: usize = 14;

/// Makes the checksum that was left to the card, if it is that of the outer packet.
fn make_checksum(told: &[u8], frame: &mut [u8]) {
    let word = |at: usize| usize::from(u16::from_ne_bytes([told[at], told[at + 1]]));
    // Where the sum begins, and where from there it belongs.
    let (start, offset) = (word(6), word(8));
    let ipv6 = frame[12..ETHERNET] == [0x86, 0xdd];
    let outer = ETHERNET + if ipv6 { 40 } else { 20 };
    // VIRTIO_NET_HDR_F_NEEDS_CSUM
    if told[0] & 1 == 0 || start != outer || start + offset + 2 > frame.len() {
        return;
    }
    let words = frame[start..].chunks(2);
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Zero would mean that there is none.
    let sum = if sum == 0xffff { 0xffff } else { !(sum as u16) };
    frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Of one link, frames as they are.
#[expect(unsafe_code, reason = "addresses of links have no safe constructor")]
fn packet_socket(link: &str) -> OwnedFd {
    let index = nix::net::if_::if_nametoindex(link).unwrap();
    // SAFETY: a plain system call; the descriptor is ours alone.
    let socket = unsafe {
        let all = libc::c_int::from((libc::ETH_P_ALL as u16).to_be());
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: zeroed is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the address is live and as long as said.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    let yes: libc::c_int = 1;
    // SAFETY: the value is live and as long as said.
    let told = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const yes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(told, 0, "{}", std::io::Error::last_os_error());
    socket
}
