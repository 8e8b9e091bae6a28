//! What the socket hooks remember of a socket, so that the program behind it never learns of the translation.

use crate::Addr;

/// A socket and an address it talks to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SocketKey {
    /// The kernel's socket cookie, never used twice before a reboot.
    pub cookie: u64,
    /// The backend's address in `SOCKETS_*`, the frontend's in `STEADY`.
    pub addr: Addr,
    pub port: u16,
    pub pad: [u16; 3],
}

/// The frontend's address, as the program behind the socket gave it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SocketValue {
    pub addr: Addr,
    pub port: u16,
    pub pad: [u16; 3],
    /// Cookie of the socket's network namespace, where it is found when its backend is gone.
    pub netns: u64,
}

/// The backend that serves an unconnected UDP socket for one frontend, for as long as it is alive.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SteadyValue {
    pub addr: Addr,
    pub port: u16,
    pub pad: u16,
    /// The set in which the backend was last seen.
    pub set: u32,
}

impl SteadyValue {
    /// In place of a backend: the socket's datagrams go out as they are, and are translated on their way.
    pub const LEFT: Self = Self {
        addr: Addr { words: [0; 4] },
        port: 0,
        pad: 0,
        set: 0,
    };

    /// Whether it is [`LEFT`](Self::LEFT).
    #[inline(always)]
    #[must_use]
    pub const fn is_left(&self) -> bool {
        self.port == 0
    }
}

/// The pod's label asks for it.
pub const UNTRANSLATED_BY_LABEL: u32 = 1;
/// A rule of the pod itself redirects what its programs send (a sidecar), and has to see the address that they meant.
pub const UNTRANSLATED_BY_REDIRECT: u32 = 2;
