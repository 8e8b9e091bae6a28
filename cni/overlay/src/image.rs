//! What the kernel is known to hold, and which of its events fit that. Pure.

use std::collections::BTreeMap;

use seaway_kernel::route::TABLE_MAIN;
use seaway_kernel::{Event, Link, MacAddr, Neighbour, Route};
use seaway_model::ownership::VXLAN_LINK;

use crate::diff::{metric, same};
use crate::mesh::{Member, Roster};
use crate::observe::{is_link_local, is_ours};
use crate::plan::{Desired, Device, Underlay};

#[cfg(test)]
mod tests;

/// The kernel after a comparison that succeeded.
#[derive(Debug)]
pub struct Image {
    /// This node as its Node says.
    pub node: Member,
    /// The same with those addresses that are on links, and its peers.
    pub roster: Roster,
    pub underlay: Underlay,
    pub desired: Desired,
    /// The VXLAN device.
    pub device: Link,
    /// Uplinks as last seen; none before the first event of it.
    uplinks: BTreeMap<u32, Link>,
    /// What the device was before the comparison, until its events have told what became of it.
    former: Option<State>,
}

/// What is wanted of a device and stands in its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    mac: Option<MacAddr>,
    mtu: u32,
    up: bool,
    /// Packets go to it, and not to the routes of the device.
    master: Option<u32>,
}

impl State {
    fn of(link: &Link) -> Self {
        Self {
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            master: link.master,
        }
    }

    fn wanted(device: &Device) -> Self {
        Self {
            mac: Some(device.mac),
            mtu: device.mtu,
            up: true,
            master: None,
        }
    }

    /// Whether it is on the way from the one to the other, of which each part is changed once.
    fn lies_between(self, before: Self, after: Self) -> bool {
        (self.mac == before.mac || self.mac == after.mac)
            && (self.mtu == before.mtu || self.mtu == after.mtu)
            && (self.up == before.up || self.up == after.up)
            && (self.master == before.master || self.master == after.master)
    }
}

impl Image {
    /// Of what was just brought about. `found` is what bore the device's name before.
    pub fn new(
        node: Member,
        roster: Roster,
        underlay: Underlay,
        desired: Desired,
        device: Link,
        found: Option<&Link>,
    ) -> Self {
        let wanted = State::wanted(&desired.device);
        let former = match found {
            Some(found) if found.index == device.index => State::of(found),
            // A new device is down.
            _ => State {
                up: false,
                ..wanted
            },
        };
        Self {
            node,
            roster,
            underlay,
            desired,
            device,
            uplinks: BTreeMap::new(),
            former: (former != wanted).then_some(former),
        }
    }

    /// Whether an event tells nothing new, or nothing of ours. Our own changes come back as events, too.
    pub fn fits(&mut self, event: &Event) -> bool {
        match event {
            Event::LinkSet(link) => self.fits_link(link),
            Event::LinkDeleted(link) => {
                link.index != self.device.index && !self.underlay.has(link.index)
            }
            Event::AddressSet(address) => {
                let ip = address.network.ip();
                if address.link == self.device.index {
                    return is_link_local(ip) || self.desired.addresses.contains(&address.network);
                }
                let of_node = self.node.addresses().any(|own| own == ip);
                !of_node || self.is_known(address.link, ip)
            }
            Event::AddressDeleted(address) => {
                let ip = address.network.ip();
                if address.link == self.device.index {
                    return !self.desired.addresses.contains(&address.network);
                }
                // Where it is on loopback, the uplink is another link.
                !self.node.addresses().any(|own| own == ip)
            }
            Event::RouteSet(route) => self.fits_route(route),
            Event::RouteDeleted(route) => match self.wanted(route) {
                Some(wanted) => !same(route, &wanted),
                None => true,
            },
            Event::NeighbourSet(seen) => self.fits_neighbour(seen),
            Event::NeighbourDeleted(seen) => {
                let wanted = self.desired.neighbours.contains_key(&seen.address);
                seen.link != self.device.index || !wanted
            }
        }
    }

    fn fits_link(&mut self, link: &Link) -> bool {
        if link.index == self.device.index || link.name == VXLAN_LINK {
            return self.fits_device(link);
        }
        let mut of_index = [&self.underlay.v4, &self.underlay.v6].into_iter().flatten();
        let Some(uplink) = of_index.find(|uplink| uplink.index == link.index) else {
            return true;
        };
        let as_listed = uplink.mtu == link.mtu && uplink.name == link.name;
        let before = self.uplinks.insert(link.index, link.clone());
        // Down and up again: the kernel has dropped routes over it, without a word.
        as_listed
            && link.up
            && before.is_none_or(|before| before.up && before.running == link.running)
    }

    /// The comparison's own changes come one by one; those of a device that went before come before them.
    fn fits_device(&mut self, link: &Link) -> bool {
        let (now, wanted) = (State::of(link), State::wanted(&self.desired.device));
        let is_device = link.index == self.device.index;
        let named = link.name == VXLAN_LINK;
        if is_device && named && now == wanted {
            self.former = None;
            return true;
        }
        let on_the_way = |former| now.lies_between(former, wanted);
        named
            && self
                .former
                .is_some_and(|former| !is_device || on_the_way(former))
    }

    fn is_known(&self, link: u32, ip: std::net::IpAddr) -> bool {
        let uplink = self.underlay.of(seaway_model::Family::of(ip));
        uplink.is_some_and(|uplink| uplink.index == link && uplink.network.ip() == ip)
    }

    /// The route that should be where this one is.
    fn wanted(&self, route: &Route) -> Option<Route> {
        let hop = self.desired.routes.get(&route.destination)?;
        let wanted = hop.route(route.destination, self.device.index);
        (route.table == TABLE_MAIN && metric(route) == metric(&wanted)).then_some(wanted)
    }

    fn fits_route(&self, route: &Route) -> bool {
        match self.wanted(route) {
            Some(wanted) => same(route, &wanted),
            None => !is_ours(route),
        }
    }

    fn fits_neighbour(&self, seen: &Neighbour) -> bool {
        if seen.link != self.device.index {
            return true;
        }
        match self.desired.neighbours.get(&seen.address) {
            Some(mac) => seen.permanent && seen.mac == Some(*mac),
            None => !seen.permanent,
        }
    }
}
