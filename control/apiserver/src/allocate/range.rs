//! Ranges and the order in which their members are tried. Pure.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

/// A range cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("the service range {0} is too small: at least 8 addresses are needed")]
    TooSmall(IpNetwork),
    #[error("{0} is not the first address of its range; did you mean {1}?")]
    NotCanonical(IpNetwork, IpNetwork),
    #[error("service ranges are one per address family, at most one IPv4 and one IPv6; given: {0}")]
    Families(String),
    #[error("the node port range {0} is empty or contains port 0")]
    Ports(PortRange),
}

/// More members than this are not used: the same bound as upstream's allocator has for IPv6.
const MAX_MEMBERS: u128 = 1 << 20;

/// The addresses of a Service CIDR, without its first and, for IPv4, its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    network: IpNetwork,
    members: u32,
}

impl AddressRange {
    pub fn new(network: IpNetwork) -> Result<Self, RangeError> {
        let (bits, unused) = if network.is_ipv4() { (32, 2) } else { (128, 1) };
        let host_bits = bits - u32::from(network.prefix());
        let size = 1_u128
            .checked_shl(host_bits)
            .unwrap_or(u128::MAX)
            .min(MAX_MEMBERS);
        if host_bits < 3 {
            return Err(RangeError::TooSmall(network));
        }
        if network.ip() != network.network() {
            let canonical = IpNetwork::new(network.network(), network.prefix()).unwrap_or(network);
            return Err(RangeError::NotCanonical(network, canonical));
        }
        let members = u32::try_from(size - unused).map_err(|_| RangeError::TooSmall(network))?;
        Ok(Self { network, members })
    }

    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// `IPv4` or `IPv6`, as `spec.ipFamilies` has it.
    pub fn family(&self) -> &'static str {
        if self.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// The member `index`, counted from 0: the address after the network's.
    pub fn member(&self, index: u32) -> IpAddr {
        match self.network.network() {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) + index + 1).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + u128::from(index) + 1).into()),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let offset = match (self.network.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u128::from(u32::from(address)).checked_sub(u128::from(u32::from(base)))
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                u128::from(address).checked_sub(u128::from(base))
            }
            _ => None,
        };
        offset.is_some_and(|offset| offset >= 1 && offset <= u128::from(self.members))
    }

    /// Every member once, in the order to try them; see [`order`].
    pub fn candidates(&self, random: u32) -> impl Iterator<Item = IpAddr> + '_ {
        let band = (self.members / 16).clamp(16, 256);
        order(self.members, band, random).map(|index| self.member(index))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)
    }
}

/// The ports for `spec.ports[].nodePort`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl PortRange {
    pub fn new(ports: RangeInclusive<u16>) -> Result<Self, RangeError> {
        if ports.is_empty() || *ports.start() == 0 {
            return Err(RangeError::Ports(Self(ports)));
        }
        Ok(Self(ports))
    }

    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    pub fn candidates(&self, random: u32) -> impl Iterator<Item = u16> + '_ {
        let members = u32::from(*self.0.end() - *self.0.start()) + 1;
        let band = (members / 32).clamp(16, 128);
        let port = |index: u32| u16::try_from(u32::from(*self.0.start()) + index).ok();
        order(members, band, random).filter_map(port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// 0..members, each once: first those above the static band from a random start, then the band, which is left to people
/// who choose addresses themselves (KEP-3070, KEP-3668). A range not larger than its band has none.
fn order(members: u32, band: u32, random: u32) -> impl Iterator<Item = u32> {
    let band = if band < members { band } else { 0 };
    let upper = members - band;
    let start = random % upper.max(1);
    (0..upper)
        .map(move |index| band + (start + index) % upper)
        .chain(0..band)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn members_leave_out_network_and_broadcast() {
        let range = range("10.96.0.0/29");
        let all: Vec<String> = range
            .candidates(0)
            .map(|address| address.to_string())
            .collect();
        assert_eq!(
            all,
            [
                "10.96.0.1",
                "10.96.0.2",
                "10.96.0.3",
                "10.96.0.4",
                "10.96.0.5",
                "10.96.0.6"
            ]
        );
        for outside in ["10.96.0.0", "10.96.0.7", "10.95.255.255", "fd00::1"] {
            assert!(!range.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(range.contains("10.96.0.6".parse().unwrap()));
    }

    #[test]
    fn the_static_band_comes_last() {
        let range = range("10.96.0.0/16");
        for random in [0, 1, 77_777, u32::MAX] {
            let all: Vec<IpAddr> = range.candidates(random).collect();
            let distinct: std::collections::HashSet<&IpAddr> = all.iter().collect();
            assert_eq!((all.len(), distinct.len()), (65_534, 65_534));
            assert!(
                all[..65_534 - 256]
                    .iter()
                    .all(|address| *address > "10.96.1.0".parse::<IpAddr>().unwrap())
            );
            assert_eq!(all[65_534 - 256], "10.96.0.1".parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn ipv6_is_bounded() {
        let range = range("fd00:10:96::/64");
        assert_eq!(range.candidates(5).count(), (1 << 20) - 1);
        assert!(range.contains("fd00:10:96::1".parse().unwrap()));
        assert!(!range.contains("fd00:10:96::ffff:ffff".parse().unwrap()));
    }

    #[test]
    fn ports() {
        let ports = PortRange::new(30_000..=32_767).unwrap();
        assert_eq!(ports.candidates(0).next(), Some(30_086));
        assert_eq!(ports.candidates(9).count(), 2768);
        assert_eq!(ports.to_string(), "30000-32767");
    }

    #[test]
    fn unusable_ranges() {
        let new = |text: &str| {
            AddressRange::new(text.parse().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            new("10.0.0.0/30"),
            "the service range 10.0.0.0/30 is too small: at least 8 addresses are needed"
        );
        assert_eq!(
            new("10.0.0.9/16"),
            "10.0.0.9/16 is not the first address of its range; did you mean 10.0.0.0/16?"
        );
    }
}
