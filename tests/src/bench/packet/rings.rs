//! Services whose backends are Services again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use seaway_model::{
    Backend, Desired, Family, Frontend, FrontendAddr, FrontendKind, ObjectKey, PortRule, Protocol,
    ServiceRules, TrafficPolicy,
};

pub(super) const PORT: u16 = 80;

/// Places of Services on one ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    pub(super) first: u32,
    pub(super) size: u32,
}

impl Ring {
    /// The one whose flows are measured.
    pub(super) const ONE: Self = Self { first: 0, size: 2 };
    /// The most rounds of a packet: it has 255 hops.
    const LARGEST: u32 = 250;

    /// The one that fills the flow table, of so many Services in all.
    pub(super) fn filling(services: u32) -> Self {
        let first = Self::ONE.size;
        let rest = services.saturating_sub(first).max(2);
        // An even number, so that both rings fit the same number of rounds.
        let size = rest.min(Self::LARGEST) / 2 * 2;
        Self { first, size }
    }

    fn next(self, place: u32) -> u32 {
        self.first + (place - self.first + 1) % self.size
    }

    fn has(self, place: u32) -> bool {
        (self.first..self.first + self.size).contains(&place)
    }
}

/// The address of the Service at a place.
pub(super) fn address(family: Family, place: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(0x0a60_0001 + place).into(),
        Family::V6 => Ipv6Addr::from_bits(0xfd00_0010_0096 << 80 | (u128::from(place) + 1)).into(),
    }
}

/// So many Services: two rings, in both families, and others, of which nobody asks.
pub(super) fn services(count: u32) -> Desired {
    let mut desired = Desired::default();
    let rings = [Ring::ONE, Ring::filling(count)];
    for place in 0..count {
        let ring = rings.iter().find(|ring| ring.has(place));
        let ports = match ring {
            Some(ring) => [Family::V4, Family::V6]
                .iter()
                .flat_map(|family| {
                    [Protocol::Tcp, Protocol::Udp]
                        .map(|protocol| port(*family, protocol, place, ring.next(place)))
                })
                .collect(),
            None => vec![port(Family::V4, Protocol::Tcp, place, 0)],
        };
        let key = ObjectKey::new("bench", format!("service-{place}"));
        let rules = ServiceRules {
            ports,
            ..ServiceRules::default()
        };
        desired.services.insert(key, rules);
    }
    desired
}

fn port(family: Family, protocol: Protocol, place: u32, next: u32) -> PortRule {
    PortRule {
        port_name: "".into(),
        protocol,
        family,
        frontends: vec![Frontend {
            addr: FrontendAddr::Ip(address(family, place)),
            port: PORT,
            protocol,
            kind: FrontendKind::ClusterIp,
        }],
        cluster: vec![Backend {
            addr: SocketAddr::new(address(family, next), PORT),
            local: false,
        }],
        local: Vec::new(),
        lingering: Vec::new(),
        any_endpoints: true,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_closed_and_apart() {
        for count in [10, 10_000] {
            let filling = Ring::filling(count);
            for ring in [Ring::ONE, filling] {
                let mut place = ring.first;
                for _ in 0..ring.size {
                    assert!(ring.has(place) && place < count);
                    place = ring.next(place);
                }
                assert_eq!((place, ring.size % 2), (ring.first, 0));
            }
            assert!(!filling.has(1));
            assert_eq!(services(count).services.len(), count as usize);
        }
    }
}
