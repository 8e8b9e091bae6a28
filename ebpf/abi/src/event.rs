//! What the programs tell of single flows, while somebody listens.
//!
//! Nobody does most of the time: then a program looks at one word ([`Listener::until`]) and goes on. It never looks at all for
//! a packet of a flow that stands.

use core::mem::offset_of;

use crate::{Addr, Verdict};

/// Who listens and to what: one entry, written by the listener.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Listener {
    /// `CLOCK_MONOTONIC` in nanoseconds. A listener renews it all the time, so that one that was killed is forgotten.
    pub until: u64,
    /// Flows told of: one in so many, the beginning and the end of the same. 0 and 1: each.
    pub sample: u32,
    /// `WANT_*` bits.
    pub wants: u32,
}

/// Flows that begin and end, and those that move on to another backend.
pub const WANT_FLOWS: u32 = 1;
/// Whatever is refused or dropped.
pub const WANT_DROPS: u32 = 2;

/// A record of the ring buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Event {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub at: u64,
    /// The cookie of the socket's network namespace; 0 for a packet.
    pub netns: u64,
    /// Who asks. A socket has no address before it connects.
    pub client: Addr,
    /// What it asks, as it wrote it.
    pub frontend: Addr,
    /// The client as the backend sees it; unspecified with port 0 where there is no backend.
    pub source: Addr,
    /// Who answers; likewise.
    pub backend: Addr,
    pub client_port: u16,
    pub frontend_port: u16,
    pub source_port: u16,
    pub backend_port: u16,
    /// What happened: a [`Verdict`] by its index.
    pub verdict: u32,
    /// IANA number.
    pub protocol: u8,
    /// `EVENT_*` bits.
    pub flags: u8,
    pub pad: [u8; 2],
}

impl Event {
    /// Reads a record, whatever wrote it; `None` if it is too short. Every longer one is an event, if a strange one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            at: word(bytes, offset_of!(Self, at))?,
            netns: word(bytes, offset_of!(Self, netns))?,
            client: addr(bytes, offset_of!(Self, client))?,
            frontend: addr(bytes, offset_of!(Self, frontend))?,
            source: addr(bytes, offset_of!(Self, source))?,
            backend: addr(bytes, offset_of!(Self, backend))?,
            client_port: u16::from_ne_bytes(array(bytes, offset_of!(Self, client_port))?),
            frontend_port: u16::from_ne_bytes(array(bytes, offset_of!(Self, frontend_port))?),
            source_port: u16::from_ne_bytes(array(bytes, offset_of!(Self, source_port))?),
            backend_port: u16::from_ne_bytes(array(bytes, offset_of!(Self, backend_port))?),
            verdict: u32::from_ne_bytes(array(bytes, offset_of!(Self, verdict))?),
            protocol: *bytes.get(offset_of!(Self, protocol))?,
            flags: *bytes.get(offset_of!(Self, flags))?,
            pad: array(bytes, offset_of!(Self, pad))?,
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_ne_bytes)
}

fn addr(bytes: &[u8], at: usize) -> Option<Addr> {
    let mut words = [0; 4];
    for (i, word) in words.iter_mut().enumerate() {
        *word = u32::from_ne_bytes(array(bytes, at + 4 * i)?);
    }
    Some(Addr { words })
}

/// The client is outside of the cluster.
pub const EVENT_FAR: u8 = 1;
/// The frontend is a node port: it stands in the map without an address.
pub const EVENT_NODE_PORT: u8 = 2;
/// Seen by a socket hook.
pub const EVENT_SOCKET: u8 = 4;

/// Bytes of the ring buffer: some 3600 events.
pub const EVENTS_LEN: u32 = 512 * 1024;

impl Verdict {
    /// The `WANT_*` bit of listeners that want to hear of it.
    #[inline(always)]
    #[must_use]
    pub const fn want(self) -> u32 {
        match self.is_refusal() {
            true => WANT_DROPS,
            false => WANT_FLOWS,
        }
    }
}
