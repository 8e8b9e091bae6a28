//! Asks the kernel for the links of pods, each by itself, and for the overlay's routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use seaway_kernel::route::TABLE_MAIN;
use seaway_kernel::{Link, MacAddr, Neighbour, NetNs, Netlink, Route, RouteFilter, RouteSocket};

use super::Side;
use super::peers::{Peers, peers};
use crate::ebpf::error::EbpfError;
use crate::ebpf::tunnels;
use crate::task::blocking;

/// What is to be asked.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// Links of pods, and whether they are ours.
    pub(super) links: BTreeMap<u32, bool>,
    /// The overlay's routes; the device, if there is one.
    pub(super) overlay: Option<Option<u32>>,
}

/// What the kernel said.
#[derive(Debug, Default)]
pub(in crate::ebpf) struct Answers {
    /// `None` where there is no pod.
    pub(super) sides: BTreeMap<u32, Option<Side>>,
    pub(super) peers: Option<Peers>,
}

/// Asks for it.
pub(super) async fn ask(netns: NetNs, question: Question) -> Result<Answers, EbpfError> {
    // A socket lists one thing at a time, and whoever reads the whole node has one, too.
    let netlink = Netlink::in_namespace(&netns)?;
    let mut found = Vec::with_capacity(question.links.len());
    for (index, ours) in question.links {
        let link = match link(&netlink, index).await {
            // A dump by a link that is gone fails.
            Err(_) if netlink.link_by_index(index).await?.is_none() => None,
            other => other?,
        };
        found.push((index, ours, link));
    }
    // Last: who limits a pod before there is a route to it has it limited from the first packet on.
    let limited = match found.is_empty() {
        true => BTreeSet::new(),
        false => {
            let netns = netns.clone();
            blocking(move || RouteSocket::in_namespace(&netns)?.queued_links()).await?
        }
    };
    let sides = found.into_iter().map(|(index, ours, found)| {
        let side = found.and_then(|(link, routes, neighbours)| {
            let is = (ours, limited.contains(&index));
            Side::new(link, is, &routes, &neighbours)
        });
        (index, side)
    });
    Ok(Answers {
        sides: sides.collect(),
        peers: match question.overlay {
            Some(overlay) => Some(overlay_peers(&netns, &netlink, overlay).await?),
            None => None,
        },
    })
}

type Found = (Link, Vec<Route>, BTreeMap<IpAddr, MacAddr>);

async fn link(netlink: &Netlink, index: u32) -> Result<Option<Found>, EbpfError> {
    let Some(link) = netlink.link_by_index(index).await? else {
        return Ok(None);
    };
    let of_link = RouteFilter {
        table: Some(TABLE_MAIN),
        link: Some(index),
        ..RouteFilter::default()
    };
    let routes = netlink.routes(of_link).await?;
    let neighbours = permanent(netlink.neighbours(index).await?);
    Ok(Some((link, routes, neighbours)))
}

async fn overlay_peers(
    netns: &NetNs,
    netlink: &Netlink,
    overlay: Option<u32>,
) -> Result<Peers, EbpfError> {
    let link = match overlay {
        Some(index) => netlink.link_by_index(index).await?,
        None => None,
    };
    let Some(link) = link.filter(|link| link.up) else {
        return Ok(Peers::new());
    };
    let main = RouteFilter {
        table: Some(TABLE_MAIN),
        ..RouteFilter::default()
    };
    let routes = netlink.routes(main).await?;
    // Listed after the routes that name them.
    let neighbours = permanent(netlink.neighbours(link.index).await?);
    let port = tunnels::port_for_programs(netns, &link).await;
    Ok(peers(&link, port, &routes, &neighbours))
}

fn permanent(neighbours: Vec<Neighbour>) -> BTreeMap<IpAddr, MacAddr> {
    let permanent = neighbours
        .into_iter()
        .filter(|neighbour| neighbour.permanent);
    permanent
        .filter_map(|neighbour| Some((neighbour.address, neighbour.mac?)))
        .collect()
}
