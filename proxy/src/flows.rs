//! Flows for people and for programs that read JSON: what is told of them while it happens, and those that there are. Pure;
//! the same words in both modes.

mod entry;
mod happened;
mod names;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use seaway_ebpf_abi::{Addr, TCP, UDP};

pub use entry::Entry;
pub use happened::{Clock, Happened};
pub use names::Names;

/// IANA protocol number of SCTP.
const SCTP: u8 = 132;

/// `tcp`, `udp`, `sctp`, or the number.
fn protocol_name(number: u8) -> String {
    match number {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// From an address and a port as they stand in a packet.
fn peer(addr: Addr, port: u16) -> SocketAddr {
    SocketAddr::new(addr.ip(), u16::from_be(port))
}

/// Whether there is an address at all.
fn is_given(addr: SocketAddr) -> bool {
    match addr.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unspecified(),
    }
}
