//! CHECK: compares what ADD made with what is there. Changes nothing.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{Link, Neighbour, NetNs, Route, RouteFilter, RouteSocket, TABLE_MAIN, sysctl};

use super::Call;
use crate::attachment::Attachment;
use crate::bandwidth::Shaping;
use crate::ipam::{Assigned, Ledger, Source};
use crate::node::NodeFile;
use crate::personality::Personality;
use crate::plan::{self, Step};
use crate::ports;
use crate::protocol::{AddResult, Args, Code, Error, Ipam, OwnerKey, RuntimeConfig, Verb, Version};

impl Call {
    /// Fails with the first thing that is missing or wrong. What later plugins of the list added does not matter.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.config.version.at_least(Version::V0_4_0, "CHECK")?;
        if self.personality == Personality::HostLocal {
            return self.leased().map(drop);
        }
        let Some((_, previous)) = self.config.previous()? else {
            return Err(Error::new(Code::InvalidConfig, "CHECK needs prevResult"));
        };
        let runtime = self.config.runtime()?;
        let args = Args::parse(&self.invocation.args)?;
        if let Some(delegate) = self.delegate()? {
            delegate.call(Verb::Check)?;
        }
        let ifname = &self.invocation.ifname;
        let mut of_pod = previous.interfaces.iter();
        let of_pod = of_pod.find(|i| i.name == *ifname && !i.sandbox.is_empty());
        // A later plugin may have changed that of the pod's end alone.
        let mtu = of_pod.and_then(|interface| interface.mtu);
        let attachment = Attachment::new(&self.owner(), mtu, self.mac(&runtime, &args)?);
        if !previous
            .interfaces
            .iter()
            .any(|i| i.name == attachment.host_link)
            && self.is_chained(&previous)
        {
            return self.check_chained(&runtime, &previous);
        }
        let attachment = self.addressed(attachment, &previous)?;
        in_previous(&attachment, &previous)?;
        self.check_kernel(&attachment, &runtime)
    }

    /// Another plugin made the interface: the result does not have our link, and the ledger nothing of this pod.
    fn is_chained(&self, previous: &AddResult) -> bool {
        !previous.interfaces.is_empty() && self.leased().is_err()
    }

    /// With what ADD gave: the ledger is right about addresses of ours, the result about those of others.
    fn addressed(&self, attachment: Attachment, previous: &AddResult) -> Result<Attachment, Error> {
        let listed = |ip: IpAddr| previous.ips.iter().find(|one| one.address.ip() == ip);
        let ips: Vec<IpAddr> = match self.config.ipam()? {
            Ipam::Delegate(_) | Ipam::None => {
                previous.ips.iter().map(|ip| ip.address.ip()).collect()
            }
            _ => self.leased()?,
        };
        let assigned: Vec<_> = ips
            .into_iter()
            .map(|ip| match listed(ip) {
                Some(one) => Ok(Assigned {
                    address: one.address,
                    gateway: one.gateway,
                }),
                None => Err(wrong(format!(
                    "prevResult lists no address {ip}, which the ledger gave to this pod"
                ))),
            })
            .collect::<Result<_, _>>()?;
        let ipam = self.config.ipam()?;
        Ok(attachment.with(self.personality.style(), &assigned, ipam.routes()))
    }

    /// The addresses that the ledger has for this pod.
    fn leased(&self) -> Result<Vec<IpAddr>, Error> {
        let owner = self.owner();
        let digits = crate::attachment::digits(&owner);
        let root = Source::root_of(&self.config);
        let addresses: Vec<_> = match Ledger::open_existing(&root, &self.config.name)? {
            None => Vec::new(),
            Some(ledger) => ledger
                .entries()?
                .iter()
                .filter(|entry| entry.is_of(&digits))
                .map(crate::ipam::Entry::address)
                .collect(),
        };
        if addresses.is_empty() && !matches!(self.config.ipam(), Ok(Ipam::None | Ipam::Delegate(_)))
        {
            return Err(not_reserved(&owner));
        }
        Ok(addresses)
    }

    fn check_kernel(&self, attachment: &Attachment, runtime: &RuntimeConfig) -> Result<(), Error> {
        let pod = self.pod_namespace()?;
        let mut host = Side::new(RouteSocket::open()?, &attachment.host_link, "on the node")?;
        let mut inside = Side::in_pod(&pod, &attachment.ifname)?;
        if inside.link.peer != Some(host.link.index) || host.link.peer != Some(inside.link.index) {
            return Err(wrong(format!(
                "{} in the pod and {} on the node are not two ends of one pair",
                inside.link.name, host.link.name
            )));
        }
        if let Some(mtu) = attachment.mtu.filter(|mtu| *mtu != inside.link.mtu) {
            return Err(wrong(format!(
                "{} in the pod has MTU {}, and had {mtu}",
                inside.link.name, inside.link.mtu
            )));
        }
        // What came to other links later is no reason to give way.
        let plan = if plan::gave_way(inside.link.index, &inside.routes) {
            let others = inside.socket.routes(RouteFilter {
                table: Some(TABLE_MAIN),
                ..RouteFilter::default()
            })?;
            plan::add_beside(attachment, inside.link.index, &others)
        } else {
            plan::add(attachment)
        };
        inside.has(&plan.pod, &host.link.clone())?;
        host.has(&plan.host, &inside.link.clone())?;
        if self.personality == Personality::Seaway && matches!(self.config.ipam()?, Ipam::Node(_)) {
            let node = NodeFile::read(&self.config.run_dir)?;
            usable(&mut host.socket, &node.vxlan_link, "on the node")?;
        }
        let shaping = Shaping::new(&self.owner(), self.config.bandwidth()?, runtime.bandwidth)?;
        if let Some(shaping) = shaping {
            shaping.check(&mut host.socket, host.link.index)?;
        }
        let ports = self.host_ports(attachment, runtime)?;
        ports::check(&ports, &self.tag())?;
        settings(&host.link.name, !ports.mappings.is_empty())
    }
}

/// The settings of the node's end, unless they were switched off. The larger of a link's value and that of `all` counts
/// (ip-sysctl), and others may have their reasons to raise one.
fn settings(link: &str, host_ports: bool) -> Result<(), Error> {
    let route_localnet = host_ports.then_some("route_localnet");
    for key in ["rp_filter"].into_iter().chain(route_localnet) {
        let read = |of: &str| sysctl::read(&format!("net/ipv4/conf/{of}/{key}"));
        if read(link)? == "0" && read("all")? == "0" {
            return Err(wrong(format!("sysctl {key} of {link} on the node is 0")));
        }
    }
    Ok(())
}

/// The result that the runtime kept must speak of the same objects.
fn in_previous(attachment: &Attachment, previous: &AddResult) -> Result<(), Error> {
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
    Ok(())
}

/// One end of the pair, and what is on it.
struct Side {
    socket: RouteSocket,
    link: Link,
    /// As sentences say it.
    place: &'static str,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
    addresses: Vec<IpNetwork>,
}

impl Side {
    fn in_pod(pod: &NetNs, name: &str) -> Result<Self, Error> {
        Self::new(RouteSocket::in_namespace(pod)?, name, "in the pod")
    }

    fn new(mut socket: RouteSocket, name: &str, place: &'static str) -> Result<Self, Error> {
        let link = usable(&mut socket, name, place)?;
        let filter = RouteFilter {
            link: Some(link.index),
            ..RouteFilter::default()
        };
        Ok(Self {
            routes: socket.routes(filter)?,
            neighbours: socket.neighbours(link.index)?,
            addresses: socket
                .addresses(link.index)?
                .iter()
                .map(|a| a.network)
                .collect(),
            socket,
            link,
            place,
        })
    }

    /// Fails unless what those steps made is still there.
    fn has(&mut self, steps: &[Step], peer: &Link) -> Result<(), Error> {
        let name = &self.link.name;
        let (addresses, others): (Vec<_>, Vec<_>) = steps
            .iter()
            .partition(|step| matches!(step, Step::Address(_)));
        let (routes, neighbours): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|step| matches!(step, Step::Route { .. }));
        for step in addresses.into_iter().chain(routes).chain(neighbours) {
            match step {
                Step::Address(network) => {
                    if !self.addresses.iter().any(|a| a.ip() == network.ip()) {
                        return Err(wrong(format!("{name} has no address {}", network.ip())));
                    }
                }
                Step::Route { route, .. } => self.has_route(route)?,
                Step::Rule(rule) => {
                    if !self.socket.source_rules()?.contains(rule) {
                        let place = self.place;
                        return Err(wrong(format!(
                            "there is no rule {place} that packets from {} leave by {name}",
                            rule.from
                        )));
                    }
                }
                Step::Neighbour { address, .. } => {
                    let found = self
                        .neighbours
                        .iter()
                        .any(|n| n.address == *address && n.permanent && n.mac == peer.mac);
                    if !found {
                        return Err(wrong(format!(
                            "{name} has no permanent neighbour {address} with the address of {}",
                            peer.name
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn has_route(&self, wanted: &Route) -> Result<(), Error> {
        let found = self.routes.iter().any(|route| {
            route.destination == wanted.destination
                && route.gateway == wanted.gateway
                && route.kind == wanted.kind
                && route.table == wanted.table
        });
        if found {
            return Ok(());
        }
        let place = self
            .place
            .trim_start_matches("in ")
            .trim_start_matches("on ");
        Err(wrong(format!("{place} has no route {wanted}")))
    }
}

fn usable(socket: &mut RouteSocket, name: &str, place: &str) -> Result<Link, Error> {
    match socket.link(name)? {
        Some(link) if link.up => Ok(link),
        Some(_) => Err(wrong(format!("link {name} {place} is down"))),
        None => Err(wrong(format!("link {name} {place} is missing"))),
    }
}

fn not_reserved(owner: &OwnerKey) -> Error {
    wrong(format!(
        "no address is reserved for container {}",
        owner.container_id
    ))
}

fn wrong(message: String) -> Error {
    Error::new(Code::CheckFailed, message)
}
