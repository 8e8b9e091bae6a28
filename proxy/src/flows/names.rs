//! Which Service a client has asked.

use std::collections::HashMap;
use std::net::IpAddr;

use seaway_model::{Desired, Family, FrontendAddr, ObjectKey};

/// Services by where clients ask for them.
#[derive(Debug, Clone, Default)]
pub struct Names {
    frontends: HashMap<(FrontendAddr, u16, u8), ObjectKey>,
    cluster_ips: HashMap<IpAddr, ObjectKey>,
}

impl Names {
    /// Of all Services. Where two claim one frontend, the first has it, as in [`Desired::find`].
    pub fn of(desired: &Desired) -> Self {
        let mut names = Self::default();
        for (key, rules) in &desired.services {
            for frontend in rules.ports.iter().flat_map(|rule| &rule.frontends) {
                let at = (frontend.addr, frontend.port, frontend.protocol.number());
                names.frontends.entry(at).or_insert_with(|| key.clone());
            }
            for ip in rules.cluster_ips() {
                names.cluster_ips.entry(ip).or_insert_with(|| key.clone());
            }
        }
        names
    }

    /// The Service that answers there; of a cluster IP also the one that has it without having that port.
    pub fn find(
        &self,
        ip: IpAddr,
        port: u16,
        protocol: u8,
        at_node_ports: bool,
    ) -> Option<&ObjectKey> {
        let at = |addr| self.frontends.get(&(addr, port, protocol));
        let node_port = || at(FrontendAddr::AnyNodeAddress(Family::of(ip)));
        at(FrontendAddr::Ip(ip))
            .or_else(|| at_node_ports.then(node_port).flatten())
            .or_else(|| self.cluster_ips.get(&ip))
    }
}
