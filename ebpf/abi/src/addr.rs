//! An address of either family, so that one set of maps and one code path carry both.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2); network byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr {
    pub words: [u32; 4],
}

const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// `::`. As the address of a frontend: every address of the node of that family.
    pub const ANY_V6: Self = Self { words: [0; 4] };
    /// `0.0.0.0`. As the address of a frontend: every address of the node of that family.
    pub const ANY_V4: Self = Self::v4(0);

    /// From an IPv4 address as it stands in a packet.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bits: u32) -> Self {
        Self {
            words: [0, 0, MAPPED, bits],
        }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] | self.words[1] | (self.words[2] ^ MAPPED) == 0
    }

    /// Equality without a loop, which the kernel's verifier likes better than the derived one.
    #[inline(always)]
    #[must_use]
    pub const fn same(&self, other: &Self) -> bool {
        (self.words[0] ^ other.words[0])
            | (self.words[1] ^ other.words[1])
            | (self.words[2] ^ other.words[2])
            | (self.words[3] ^ other.words[3])
            == 0
    }

    /// The frontend address that stands for every address of the node of this family.
    #[inline(always)]
    #[must_use]
    pub const fn any(&self) -> Self {
        if self.is_v4() {
            Self::ANY_V4
        } else {
            Self::ANY_V6
        }
    }

    /// `0.0.0.0` or `::`: to a socket its own host, and never in a packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.same(&Self::ANY_V4) || self.same(&Self::ANY_V6)
    }

    /// 127.0.0.0/8 or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.words[3].to_ne_bytes()[0] == 127
        } else {
            self.words[0] | self.words[1] | self.words[2] | (self.words[3] ^ 1_u32.to_be()) == 0
        }
    }

    /// Whether the address lies in a network.
    #[inline(always)]
    #[must_use]
    pub const fn is_in(&self, network: &Cidr) -> bool {
        ((self.words[0] & network.mask.words[0]) ^ network.addr.words[0])
            | ((self.words[1] & network.mask.words[1]) ^ network.addr.words[1])
            | ((self.words[2] & network.mask.words[2]) ^ network.addr.words[2])
            | ((self.words[3] & network.mask.words[3]) ^ network.addr.words[3])
            == 0
    }

    /// As the rest of the world writes it.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        let [a, b, c, d] = self.words.map(u32::to_ne_bytes);
        if self.is_v4() {
            return Ipv4Addr::from(d).into();
        }
        let mut octets = [0; 16];
        for (to, from) in octets.chunks_exact_mut(4).zip([a, b, c, d]) {
            to.copy_from_slice(&from);
        }
        Ipv6Addr::from(octets).into()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(ip) => return Self::v4(u32::from_ne_bytes(ip.octets())),
            IpAddr::V6(ip) => ip.octets(),
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { words }
    }
}

/// A network: an address that is in it once masked.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cidr {
    pub addr: Addr,
    /// Ones in the first 96 bits for IPv4.
    pub mask: Addr,
}

impl Cidr {
    /// The network of an address, given its prefix length as it is written.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8) -> Self {
        let prefix = u32::from(prefix) + if ip.is_ipv4() { 96 } else { 0 };
        let mut mask = Addr::default();
        let mut addr = Addr::from(ip);
        for (i, (mask, addr)) in (0..).zip(mask.words.iter_mut().zip(&mut addr.words)) {
            let ones = prefix.saturating_sub(32 * i).min(32);
            *mask = u32::MAX.checked_shl(32 - ones).unwrap_or(0).to_be();
            *addr &= *mask;
        }
        Self { addr, mask }
    }
}
