//! Routes for frontends that the node has no route to.
//!
//! A packet that is refused is not translated, so it is routed by the frontend's own address. A node without a
//! default route answers "network is unreachable" to that before the filter table is asked, and a process of the node
//! does not even get its packet to nat, live endpoints or not. So on such a node each frontend gets a route of ours
//! over the uplink: enough for the packet to reach OUTPUT, or FORWARD, where it is refused or dropped. Not over
//! loopback: IPv6 makes a reject route of that, and FORWARD is not reached. A node with a default route gets none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{
    Event, Link, Netlink, Route, RouteFilter, RouteKind, Scope, Watch, WatchGroups,
};
use seaway_model::Family;
use seaway_model::ownership::{
    ROUTE_METRIC, ROUTE_PROTOCOL, VXLAN_LINK, is_pod_link, is_shaping_link,
};

#[cfg(test)]
mod tests;

/// Which of these addresses no route of the node leads to; ours do not count.
pub fn unroutable(routes: &[Route], addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let foreign: Vec<&Route> = routes.iter().filter(|r| !is_ours(r)).collect();
    // In whatever table: rules may lead there, and a node with a way out is none that needs help.
    let has_default = |family| {
        foreign.iter().any(|r| {
            r.destination.prefix() == 0
                && r.kind == RouteKind::Unicast
                && Family::of(r.destination.ip()) == family
        })
    };
    let (v4, v6) = (has_default(Family::V4), has_default(Family::V6));
    let mut left = addresses.clone();
    left.retain(|&addr| match Family::of(addr) {
        Family::V4 => !v4,
        Family::V6 => !v6,
    });
    // A route for each pod and network, against each address of a Service.
    left.retain(|&addr| {
        let leads_there = |r: &&Route| r.destination.prefix() > 0 && r.destination.contains(addr);
        !foreign.iter().any(leads_there)
    });
    left
}

/// Whether a route is one that this module has made.
pub fn is_ours(route: &Route) -> bool {
    route.protocol == ROUTE_PROTOCOL && route.metric == Some(ROUTE_METRIC)
}

/// The link that refused packets are routed over; they never get there.
pub fn uplink(links: &[Link]) -> Option<u32> {
    let usable = |link: &&Link| link.up && leads_out(link);
    links.iter().filter(usable).map(|link| link.index).min()
}

/// Links of pods and the overlay's come and go.
fn leads_out(link: &Link) -> bool {
    let name = link.name.as_str();
    name != "lo" && name != VXLAN_LINK && !is_pod_link(name) && !is_shaping_link(name)
}

/// Whether the routes of ours may be others after this: most of what happens on a node are routes and links of pods.
pub fn concerns(event: &Event, has_frontend: impl Fn(IpNetwork) -> bool) -> bool {
    match event {
        Event::LinkSet(link) | Event::LinkDeleted(link) => leads_out(link),
        // What we have just written ourselves.
        Event::RouteSet(route) if is_ours(route) => false,
        Event::RouteSet(route) | Event::RouteDeleted(route) => {
            route.destination.prefix() == 0 || has_frontend(route.destination)
        }
        _ => false,
    }
}

/// Follows the node's routes and links.
#[derive(Debug, Default)]
pub struct Follower {
    watch: Option<Watch>,
    failed: bool,
}

impl Follower {
    /// What happens next; `None` when something may have been missed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(watch) = &mut self.watch {
            let event = watch.next().await;
            if event.is_none() {
                self.watch = None;
            }
            return event;
        }
        let groups = WatchGroups {
            links: true,
            routes: true,
            ..WatchGroups::default()
        };
        match Watch::new(groups) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(%error, "cannot follow the routes of the node; refusals may become unreachable when they change");
            }
            Err(_) => std::future::pending().await,
        }
        None
    }
}

fn route(addr: IpAddr, link: u32) -> Route {
    Route {
        link: Some(link),
        scope: Scope::Link,
        metric: Some(ROUTE_METRIC),
        ..Route::new(IpNetwork::from(addr), ROUTE_PROTOCOL)
    }
}

/// Brings the routes of ours to what these frontends need. Returns how many there are now.
pub async fn sync(addresses: &BTreeSet<IpAddr>) -> Result<usize, seaway_kernel::Error> {
    let netlink = Netlink::new()?;
    let routes = netlink.routes(RouteFilter::default()).await?;
    let mut wanted = unroutable(&routes, addresses);
    let uplink = uplink(&netlink.links().await?);
    if uplink.is_none() {
        wanted.clear();
    }
    let mut have = BTreeSet::new();
    for found in routes.iter().filter(|route| is_ours(route)) {
        let addr = found.destination.ip();
        if wanted.contains(&addr) && found.link == uplink {
            have.insert(addr);
        } else {
            netlink.delete_route(found).await?;
        }
    }
    if let Some(uplink) = uplink {
        for addr in wanted.difference(&have) {
            netlink.replace_route(&route(*addr, uplink)).await?;
        }
    }
    Ok(wanted.len())
}

/// Removes all of them. Returns how many there were.
pub async fn remove() -> Result<usize, seaway_kernel::Error> {
    let netlink = Netlink::new()?;
    let protocol = RouteFilter {
        protocol: Some(ROUTE_PROTOCOL),
        ..RouteFilter::default()
    };
    let mut removed = 0;
    for route in netlink
        .routes(protocol)
        .await?
        .iter()
        .filter(|r| is_ours(r))
    {
        netlink.delete_route(route).await?;
        removed += 1;
    }
    Ok(removed)
}
