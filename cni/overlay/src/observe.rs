//! What is in the kernel now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::route::TABLE_MAIN;
use seaway_kernel::{
    Address, Error, Link, LinkKind, MacAddr, Neighbour, Netlink, Offload, Route, RouteFilter,
    Sysctl, VxlanSettings, xfrm,
};
use seaway_model::ownership::{ROUTE_METRIC, ROUTE_PROTOCOL, VXLAN_LINK};

use crate::mesh::Member;
use crate::plan::{Desired, Underlay, Uplink};

/// What is ours in the kernel, and what bears our device's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub device: Option<DeviceSeen>,
    pub addresses: BTreeSet<IpNetwork>,
    /// Routes that are ours; see [`is_ours`].
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
    pub checksum_offload: bool,
    pub receive_offload: bool,
}

impl Observed {
    /// What there is to be seen once everything is as desired, on a device with this index: the image by which one
    /// change is made without listing everything.
    pub fn image(desired: &Desired, link: Link) -> Self {
        let index = link.index;
        let neighbour = |(address, mac): (&IpAddr, &MacAddr)| Neighbour {
            link: index,
            address: *address,
            mac: Some(*mac),
            permanent: true,
        };
        let vxlan = VxlanSettings {
            external: true,
            port: desired.device.port,
            learning: false,
            vni: 0,
            lower: None,
        };
        Self {
            device: Some(DeviceSeen {
                link: Link {
                    kind: LinkKind::Vxlan(vxlan),
                    mtu: desired.device.mtu,
                    mac: Some(desired.device.mac),
                    up: true,
                    ..link
                },
                vxlan: Some(vxlan),
                checksum_offload: desired.device.checksum_offload,
                receive_offload: desired.device.receive_offload,
            }),
            addresses: desired.addresses.clone(),
            routes: desired
                .routes
                .iter()
                .map(|(destination, hop)| hop.route(*destination, index))
                .collect(),
            neighbours: desired.neighbours.iter().map(neighbour).collect(),
            settings: desired
                .settings
                .iter()
                .map(|(key, value)| (key.clone(), (*value).to_owned()))
                .collect(),
        }
    }
}

/// Whether a route is one that leads to a peer. Those of our protocol to pods have no gateway, those to frontends a
/// metric of their own.
pub fn is_ours(route: &Route) -> bool {
    route.protocol == ROUTE_PROTOCOL
        && route.table == TABLE_MAIN
        && route.gateway.is_some()
        && route.metric != Some(ROUTE_METRIC)
}

/// Looks at everything; `settings` says which settings matter.
pub async fn observe(
    netlink: &Netlink,
    sysctl: &Sysctl,
    settings: impl Iterator<Item = &String>,
) -> Result<Observed, Error> {
    let mut observed = Observed {
        settings: read_settings(sysctl, settings)?,
        routes: routes(netlink).await?,
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
    observed.neighbours = netlink.neighbours(index).await?;
    let vxlan = match &link.kind {
        LinkKind::Vxlan(settings) => Some(*settings),
        _ => None,
    };
    let offload = Offload::open()?;
    observed.device = Some(DeviceSeen {
        link,
        vxlan,
        checksum_offload: offload.checksum(VXLAN_LINK)?,
        receive_offload: offload.gro(VXLAN_LINK)?,
    });
    Ok(observed)
}

/// Our routes.
pub async fn routes(netlink: &Netlink) -> Result<Vec<Route>, Error> {
    let filter = RouteFilter {
        table: Some(TABLE_MAIN),
        protocol: Some(ROUTE_PROTOCOL),
        link: None,
    };
    let mut routes = netlink.routes(filter).await?;
    routes.retain(is_ours);
    Ok(routes)
}

/// The links that this node's addresses are on. An address that is on none of them has no uplink; for one that is on loopback, as
/// where nodes speak BGP, it is the link that leads to the first of these others that one leads to.
pub async fn underlay(
    netlink: &Netlink,
    own: &Member,
    others: &[IpAddr],
) -> Result<Underlay, Error> {
    let addresses = netlink.addresses(None).await?;
    // What was encrypted on its way is taken together by nobody before the overlay's device.
    let encrypted = xfrm::policies()? != 0;
    let mut underlay = Underlay::default();
    for address in own.addresses() {
        let Some(found) = addresses.iter().find(|a| a.network.ip() == address) else {
            continue;
        };
        let found = match found.link {
            LOOPBACK => Address {
                link: way_out(netlink, others, found).await?,
                ..*found
            },
            _ => *found,
        };
        let uplink = uplink(netlink, &found, encrypted).await?;
        match address {
            IpAddr::V4(_) => underlay.v4 = uplink,
            IpAddr::V6(_) => underlay.v6 = uplink,
        }
    }
    Ok(underlay)
}

/// The kernel makes it first in each namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

async fn way_out(netlink: &Netlink, others: &[IpAddr], own: &Address) -> Result<u32, Error> {
    let family = |ip: &&IpAddr| ip.is_ipv4() == own.network.is_ipv4();
    for other in others.iter().filter(family) {
        let route = netlink.route_to(*other).await?;
        if let Some(link) = route
            .and_then(|route| route.link)
            .filter(|l| *l != LOOPBACK)
        {
            return Ok(link);
        }
    }
    Ok(LOOPBACK)
}

async fn uplink(
    netlink: &Netlink,
    address: &Address,
    encrypted: bool,
) -> Result<Option<Uplink>, Error> {
    let Some(link) = netlink.link_by_index(address.link).await? else {
        return Ok(None);
    };
    // What comes by a veth comes whole from another namespace of this machine, or was taken together by its card.
    let before = link.kind == LinkKind::Veth;
    let merged = match Offload::open()?.gro(&link.name) {
        Ok(here) => (before || here) && !encrypted,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(Uplink {
        index: link.index,
        name: link.name,
        mtu: link.mtu,
        merged,
        network: address.network,
    }))
}

fn read_settings<'a>(
    sysctl: &Sysctl,
    keys: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut values = BTreeMap::new();
    for key in keys {
        match sysctl.read(key) {
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
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
