//! Values as the layout before this one had them. Keys, and the maps that are not here, have not changed since.

use crate::{Addr, FlowValue, Hop, SocketValue};

/// The layout.
pub const VERSION: u32 = 2;

/// A flow. It did not know where its packets go from here.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OldFlowValue {
    pub last_seen: u64,
    pub src: Addr,
    pub dst: Addr,
    pub sport: u16,
    pub dport: u16,
    pub ifindex: u32,
    pub set: u32,
    pub state: u8,
    pub flags: u8,
    pub pad: [u8; 2],
}

impl From<OldFlowValue> for FlowValue {
    fn from(old: OldFlowValue) -> Self {
        Self {
            last_seen: old.last_seen,
            src: old.src,
            dst: old.dst,
            sport: old.sport,
            dport: old.dport,
            ifindex: old.ifindex,
            // Its number means another set now; none has this one, so that the backend is looked for once.
            set: 0,
            state: old.state,
            flags: old.flags,
            pad: [0; 2],
            hop: Hop::default(),
        }
    }
}

/// A frontend. It did not know its socket's namespace.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OldSocketValue {
    pub addr: Addr,
    pub port: u16,
    pub pad: u16,
}

impl From<OldSocketValue> for SocketValue {
    fn from(old: OldSocketValue) -> Self {
        Self {
            addr: old.addr,
            port: old.port,
            pad: [0; 3],
            // No namespace has this cookie.
            netns: 0,
        }
    }
}
