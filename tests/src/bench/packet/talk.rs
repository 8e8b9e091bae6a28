//! The packets of a client and of those who answer it.

use std::net::IpAddr;

use anyhow::{Result, bail};
use etherparse::PacketBuilder;
use seaway_model::{Family, Protocol};

use super::rings::{PORT, address};

/// Hops of a packet at the start: one is gone with each round.
pub(super) const HOPS: u8 = 255;

/// What a TCP packet says; of a datagram it means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Open,
    Accept,
    More,
}

/// A client and the Service that it talks to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Talk {
    pub(super) family: Family,
    pub(super) protocol: Protocol,
    /// Address of the client, of whatever family.
    pub(super) host: u8,
    pub(super) port: u16,
    /// Place of the Service.
    pub(super) place: u32,
}

/// Addresses of clients.
pub(super) fn client(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 244, 1, host].into(),
        Family::V6 => [0xfd00, 0x10, 0x244, 1, 0, 0, 0, u16::from(host)].into(),
    }
}

impl Talk {
    /// A packet of the client, or of the Service.
    pub(super) fn packet(&self, back: bool, says: Says, hops: u8) -> Result<Vec<u8>> {
        let client = (client(self.family, self.host), self.port);
        let service = (address(self.family, self.place), PORT);
        let (from, to) = if back {
            (service, client)
        } else {
            (client, service)
        };
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match (from.0, to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), hops),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), hops),
            mixed => bail!("{mixed:?} are of two families"),
        };
        let mut bytes = Vec::new();
        if self.protocol == Protocol::Udp {
            ip.udp(from.1, to.1).write(&mut bytes, &[])?;
            return Ok(bytes);
        }
        let tcp = ip.tcp(from.1, to.1, 1, 1024);
        let tcp = match says {
            Says::Open => tcp.syn(),
            Says::Accept => tcp.syn().ack(1),
            Says::More => tcp.ack(1),
        };
        tcp.write(&mut bytes, &[])?;
        Ok(bytes)
    }
}
