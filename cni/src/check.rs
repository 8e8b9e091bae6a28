//! CHECK: compares what ADD made with what is there. Changes nothing.

use std::net::IpAddr;

use seaway_kernel::{Link, NetNs, Netlink, Route, RouteFilter};

use crate::apply::{default_route, gateway_route, host_route};
use crate::attachment::{Attachment, everything, gateway};
use crate::node::NodeFile;
use crate::protocol::{Code, Error, PreviousResult};

/// Fails with the first thing that is missing or wrong. What later plugins of the list added does not matter.
pub async fn check(
    attachment: &Attachment,
    previous: &PreviousResult,
    pod: &NetNs,
    node: &NodeFile,
) -> Result<(), Error> {
    in_previous(attachment, previous)?;
    let host = Netlink::new()?;
    let inside = Netlink::in_namespace(pod)?;
    let host_link = usable(&host, &attachment.host_link, "on the node").await?;
    let pod_link = usable(&inside, &attachment.ifname, "in the pod").await?;
    if pod_link.peer != Some(host_link.index) || host_link.peer != Some(pod_link.index) {
        return Err(wrong(format!(
            "{} in the pod and {} on the node are not two ends of one pair",
            pod_link.name, host_link.name
        )));
    }
    let pod_addresses = inside.addresses(Some(pod_link.index)).await?;
    let pod_routes = routes_of(&inside, &pod_link).await?;
    let host_routes = routes_of(&host, &host_link).await?;
    for &address in &attachment.addresses {
        if !pod_addresses.iter().any(|a| a.network.ip() == address) {
            return Err(wrong(format!("{} has no address {address}", pod_link.name)));
        }
        let gateway = gateway(address);
        if gateway.is_ipv4() {
            needs_route(&pod_routes, &gateway_route(gateway, pod_link.index), "pod")?;
        }
        let default = default_route(everything(address), gateway, pod_link.index);
        needs_route(&pod_routes, &default, "pod")?;
        needs_route(&host_routes, &host_route(address, host_link.index), "node")?;
        needs_neighbour(&inside, &pod_link, gateway, &host_link).await?;
        needs_neighbour(&host, &host_link, address, &pod_link).await?;
    }
    usable(&host, &node.vxlan_link, "on the node").await?;
    Ok(())
}

/// The result that the runtime kept must speak of the same objects.
fn in_previous(attachment: &Attachment, previous: &PreviousResult) -> Result<(), Error> {
    let names = [(&attachment.host_link, false), (&attachment.ifname, true)];
    for (name, in_pod) in names {
        let listed = previous
            .interfaces
            .iter()
            .any(|i| i.name == *name && i.sandbox.is_empty() != in_pod);
        if !listed {
            return Err(wrong(format!("prevResult lists no interface {name}")));
        }
    }
    for address in &attachment.addresses {
        if !previous.ips.iter().any(|ip| ip.address.ip() == *address) {
            return Err(wrong(format!(
                "prevResult lists no address {address}, which the ledger gave to this pod"
            )));
        }
    }
    Ok(())
}

async fn usable(netlink: &Netlink, name: &str, place: &str) -> Result<Link, Error> {
    match netlink.link(name).await? {
        Some(link) if link.up => Ok(link),
        Some(_) => Err(wrong(format!("link {name} {place} is down"))),
        None => Err(wrong(format!("link {name} {place} is missing"))),
    }
}

async fn routes_of(netlink: &Netlink, link: &Link) -> Result<Vec<Route>, Error> {
    let filter = RouteFilter {
        link: Some(link.index),
        ..RouteFilter::default()
    };
    Ok(netlink.routes(filter).await?)
}

fn needs_route(present: &[Route], wanted: &Route, place: &str) -> Result<(), Error> {
    let found = present.iter().any(|route| {
        route.destination == wanted.destination
            && route.gateway == wanted.gateway
            && route.kind == wanted.kind
            && route.table == wanted.table
    });
    if found {
        return Ok(());
    }
    Err(wrong(format!("the {place} has no route {wanted}")))
}

async fn needs_neighbour(
    netlink: &Netlink,
    link: &Link,
    address: IpAddr,
    peer: &Link,
) -> Result<(), Error> {
    let neighbours = netlink.neighbours(link.index).await?;
    let found = neighbours
        .iter()
        .any(|n| n.address == address && n.permanent && n.mac == peer.mac);
    if found {
        return Ok(());
    }
    Err(wrong(format!(
        "{} has no permanent neighbour {address} with the address of {}",
        link.name, peer.name
    )))
}

fn wrong(message: String) -> Error {
    Error::new(Code::CheckFailed, message)
}
