//! What is in the kernel now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{
    Error, Link, LinkKind, Neighbour, Netlink, Route, RouteFilter, VxlanSettings, sysctl,
};
use seaway_model::ownership::{ROUTE_PROTOCOL, VXLAN_LINK};

/// What is ours in the kernel, and what bears our device's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub device: Option<DeviceSeen>,
    pub addresses: BTreeSet<IpNetwork>,
    /// Routes of our protocol number on the device. The plugin's pod routes are on other links.
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    /// The settings that were asked for; absent ones are missing.
    pub settings: BTreeMap<String, String>,
}

/// The device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSeen {
    pub link: Link,
    /// None if it is no VXLAN device at all.
    pub vxlan: Option<VxlanSettings>,
}

/// Looks at everything; `settings` says which settings matter.
pub async fn observe(
    netlink: &Netlink,
    settings: impl Iterator<Item = &String>,
) -> Result<Observed, Error> {
    let mut observed = Observed {
        settings: read_settings(settings)?,
        ..Observed::default()
    };
    let Some(link) = netlink.link(VXLAN_LINK).await? else {
        return Ok(observed);
    };
    let index = link.index;
    observed.addresses = netlink
        .addresses(Some(index))
        .await?
        .into_iter()
        .map(|address| address.network)
        .filter(|network| !is_link_local(network.ip()))
        .collect();
    observed.routes = routes(netlink, index).await?;
    observed.neighbours = netlink.neighbours(index).await?;
    let vxlan = match &link.kind {
        LinkKind::Vxlan(settings) => Some(*settings),
        _ => None,
    };
    observed.device = Some(DeviceSeen { link, vxlan });
    Ok(observed)
}

/// Our routes on a link.
pub async fn routes(netlink: &Netlink, link: u32) -> Result<Vec<Route>, Error> {
    netlink
        .routes(RouteFilter {
            protocol: Some(ROUTE_PROTOCOL),
            link: Some(link),
            ..RouteFilter::default()
        })
        .await
}

/// The link that has an address: a tunnel endpoint's uplink.
pub async fn uplink(netlink: &Netlink, address: IpAddr) -> Result<Option<Link>, Error> {
    let addresses = netlink.addresses(None).await?;
    match addresses.iter().find(|a| a.network.ip() == address) {
        Some(found) => netlink.link_by_index(found.link).await,
        None => Ok(None),
    }
}

fn read_settings<'a>(
    keys: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut values = BTreeMap::new();
    for key in keys {
        match sysctl::read(key) {
            Ok(value) => {
                values.insert(key.clone(), value);
            }
            // A setting of a device that is not there yet.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

/// The kernel gives every link one; it is not ours.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
