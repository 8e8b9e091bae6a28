//! Carries the plan out; decides nothing. Each side's steps are one system call.

use std::net::IpAddr;

use seaway_kernel::{
    Batch, Ipv4Settings, NetNs, RouteFilter, RouteSocket, Scope, TABLE_MAIN, VethOptions, sysctl,
};

use crate::attachment::Attachment;
use crate::bandwidth::Shaping;
use crate::plan::{self, Plan, Step};
use crate::protocol::{Code, Error};
use seaway_model::ownership::ROUTE_PROTOCOL;

/// The two ends of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    pod: u32,
    host: u32,
}

/// Makes the pair and all that is on it; when something fails, takes it back and reports the failure.
pub fn add(
    attachment: &Attachment,
    pod: &NetNs,
    shaping: Option<&Shaping>,
    host_ports: bool,
) -> Result<(), Error> {
    let node = NetNs::current()?;
    let mut host = RouteSocket::open()?;
    let mut inside = RouteSocket::in_namespace(pod)?;
    create(attachment, &node, &mut inside, &mut host)?;
    let made = enable_ipv6(attachment, pod)
        .and_then(|()| set_up(attachment, &mut inside, &mut host, shaping, host_ports));
    made.map_err(|error| {
        match undo(
            &mut host,
            &attachment.host_link,
            shaping.map(|s| s.link.as_str()),
        ) {
            Ok(()) => error,
            Err(second) => error.details(format!("and taking it back failed: {}", second.message)),
        }
    })
}

/// Fails if the pod has an interface of that name.
pub fn refuse_second(pod: &NetNs, ifname: &str) -> Result<(), Error> {
    match RouteSocket::in_namespace(pod)?.link(ifname)? {
        Some(_) => Err(is_there(ifname)),
        None => Ok(()),
    }
}

fn is_there(ifname: &str) -> Error {
    let message =
        format!("interface {ifname} exists in the pod's namespace already; it stays as it is");
    Error::new(Code::AlreadyAttached, message)
}

/// Deletes what of an attachment would stay in the pod's namespace without its link.
pub fn undo_rules(pod: &NetNs, table: u32) -> Result<(), Error> {
    Ok(RouteSocket::in_namespace(pod)?.delete_rules(table, ROUTE_PROTOCOL)?)
}

/// Deletes the pair, and the device that limits it; it is fine if there is none.
pub fn undo(host: &mut RouteSocket, link: &str, shaping: Option<&str>) -> Result<(), Error> {
    let mut batch = Batch::default();
    if let Some(device) = shaping
        && host.link(device)?.is_some()
        && let Some(end) = host.link(link)?
    {
        // Both at once: the kernel waits for every processor, however many links it deletes.
        batch.delete_link_group(Shaping::group(end.index));
    }
    batch.delete_link(link);
    if let Some(device) = shaping {
        batch.delete_link(device);
    }
    Ok(host.apply(&batch)?)
}

fn create(
    attachment: &Attachment,
    node: &NetNs,
    inside: &mut RouteSocket,
    host: &mut RouteSocket,
) -> Result<(), Error> {
    let (pod_name, host_name) = (&attachment.ifname, &attachment.host_link);
    let mut batch = Batch::default();
    // The pod's end in the pod's namespace and the other on the node, both under their final names.
    let options = VethOptions {
        mtu: attachment.mtu,
        mac: Some(attachment.pod_mac),
        peer_mac: Some(attachment.host_mac),
        peer_netns: Some(node),
        up: true,
    };
    batch.add_veth(pod_name, host_name, options);
    let Err(error) = inside.apply(&batch) else {
        return Ok(());
    };
    if !error.is_present() {
        return Err(error.into());
    }
    // "File exists" does not say which of the two names is taken.
    if inside.link(pod_name)?.is_some() {
        return Err(is_there(pod_name));
    }
    if host.link(host_name)?.is_none() {
        return Err(error.into());
    }
    let message = format!(
        "link {host_name} exists on the node already: an ADD was interrupted; run DEL first"
    );
    Err(Error::new(Code::AlreadyAttached, message))
}

/// A namespace may come with IPv6 switched off, by a runtime or a setting that it inherits from the node, and a node may have it
/// off for new links; a pod with such an address gets it on its pair, as from the reference plugins on its interface.
fn enable_ipv6(attachment: &Attachment, pod: &NetNs) -> Result<(), Error> {
    if attachment.addresses.iter().all(|a| a.network.is_ipv4()) {
        return Ok(());
    }
    let enable =
        |link: &str| match sysctl::write(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0") {
            // A kernel without IPv6 says so when it gets the address.
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        };
    enable(&attachment.host_link)?;
    let _inside = pod.enter()?;
    Ok(enable(&attachment.ifname)?)
}

fn set_up(
    attachment: &Attachment,
    inside: &mut RouteSocket,
    host: &mut RouteSocket,
    shaping: Option<&Shaping>,
    host_ports: bool,
) -> Result<(), Error> {
    let ends = Ends {
        pod: index_of(inside, &attachment.ifname)?,
        host: index_of(host, &attachment.host_link)?,
    };
    let others = inside.routes(RouteFilter {
        table: Some(TABLE_MAIN),
        ..RouteFilter::default()
    })?;
    let plan = plan::add_beside(attachment, ends.pod, &others);
    if let Some(shaping) = shaping {
        // Whoever sees the node's route to the pod sees its limits, too; and on a link that is down the kernel waits for nobody.
        shaping.apply(host, ends.host, attachment.mtu, true)?;
    }
    on_host(attachment, &plan, ends, host, host_ports)?;
    let mut batch = Batch::default();
    for step in &plan.pod {
        step.write(ends.pod, &mut batch);
    }
    inside.apply(&batch)?;
    host.await_carrier(ends.host)?;
    inside.await_carrier(ends.pod)?;
    for address in &attachment.addresses {
        // An IPv6 address receives nothing until a worker of the kernel has made its route.
        if let ip @ IpAddr::V6(_) = address.network.ip() {
            inside.await_address(ends.pod, ip)?;
        }
    }
    Ok(())
}

fn on_host(
    attachment: &Attachment,
    plan: &Plan,
    ends: Ends,
    host: &mut RouteSocket,
    host_ports: bool,
) -> Result<(), Error> {
    let mut batch = Batch::default();
    let settings = Ipv4Settings {
        // The kernel drops what the pod sends from an address that is not its own.
        rp_filter: 1,
        // A host port answers at 127.0.0.1, too.
        route_localnet: host_ports.into(),
    };
    // Its own address may be the only one by which a node reaches an IPv6 pod.
    if attachment.addresses.iter().all(|a| a.network.is_ipv4()) {
        batch.no_own_ipv6_address(&attachment.host_link);
    }
    batch.set_up(&attachment.host_link, settings);
    for step in &plan.host {
        step.write(ends.host, &mut batch);
    }
    Ok(host.apply(&batch)?)
}

impl Step {
    fn write(&self, link: u32, batch: &mut Batch) {
        match self {
            Self::Address(network) => batch.add_address(link, *network, Scope::Global, true),
            Self::Neighbour { address, mac } => batch.replace_neighbour(link, *address, *mac),
            Self::Rule(rule) => batch.add_rule(*rule),
            Self::Route { route, metrics } => {
                let mut route = route.clone();
                route.link = Some(link);
                // On the node what an earlier pod left with this address has to give way.
                if route.gateway.is_none() && *metrics == Default::default() {
                    batch.replace_route(&route);
                } else {
                    batch.add_route(&route, *metrics);
                }
            }
        }
    }
}

fn index_of(socket: &mut RouteSocket, name: &str) -> Result<u32, Error> {
    match socket.link(name)? {
        Some(link) => Ok(link.index),
        None => {
            let message = format!("link {name} vanished while it was set up");
            Err(Error::new(Code::Kernel, message))
        }
    }
}
