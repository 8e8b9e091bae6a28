//! Carries the plan out; decides nothing.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{MacAddr, NetNs, Netlink, Route, Scope, VethOptions, sysctl};
use seaway_model::ownership::ROUTE_PROTOCOL;

use crate::plan::{Step, Undo, backwards};
use crate::protocol::{Code, Error};

/// Does the steps; when one fails, takes back those that were done, and reports the failure.
pub async fn add(steps: &[Step], pod: &NetNs) -> Result<(), Error> {
    let node = NetNs::current()?;
    let mut executor = Executor {
        host: Netlink::new()?,
        pod: Netlink::in_namespace(pod)?,
        node,
        host_index: 0,
        pod_index: 0,
    };
    for (done, step) in steps.iter().enumerate() {
        if let Err(error) = executor.step(step).await {
            let left = undo(&executor.host, &backwards(&steps[..done])).await;
            return Err(match left {
                Ok(()) => error,
                Err(second) => {
                    let details = format!("and taking it back failed too: {}", second.message);
                    error.details(details)
                }
            });
        }
    }
    Ok(())
}

/// Takes steps back, all of them even if one fails; the failures are gathered.
pub async fn undo(host: &Netlink, undos: &[Undo]) -> Result<(), Error> {
    let mut failures = Vec::new();
    for undo in undos {
        let Undo::DeleteHostLink(name) = undo;
        if let Err(error) = host.delete_link_named(name).await {
            failures.push(error.to_string());
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::Kernel, failures.join("; ")))
}

struct Executor {
    host: Netlink,
    pod: Netlink,
    node: NetNs,
    /// Known once the pair is there.
    host_index: u32,
    pod_index: u32,
}

impl Executor {
    async fn step(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::CreateVeth {
                pod_name,
                pod_mac,
                host_name,
                host_mac,
                mtu,
            } => {
                self.create((pod_name, *pod_mac), (host_name, *host_mac), *mtu)
                    .await
            }
            Step::HostSetting { key, value } => Ok(sysctl::write(key, value).map(drop)?),
            Step::HostUp => Ok(self.host.set_up(self.host_index).await?),
            Step::PodAddress(network) => Ok(self
                .pod
                .add_address(self.pod_index, *network, Scope::Global)
                .await?),
            Step::PodNeighbour { address, mac } => Ok(self
                .pod
                .replace_neighbour(self.pod_index, *address, *mac)
                .await?),
            Step::PodGatewayRoute(gateway) => self.pod_gateway(*gateway).await,
            Step::PodDefaultRoute {
                destination,
                gateway,
            } => Ok(self
                .pod
                .add_route(&default_route(*destination, *gateway, self.pod_index))
                .await?),
            Step::HostNeighbour { address, mac } => Ok(self
                .host
                .replace_neighbour(self.host_index, *address, *mac)
                .await?),
            Step::HostRoute(address) => Ok(self
                .host
                .replace_route(&host_route(*address, self.host_index))
                .await?),
            Step::AwaitCarrier => {
                self.host.await_carrier(self.host_index).await?;
                Ok(self.pod.await_carrier(self.pod_index).await?)
            }
            Step::AwaitPodAddress(address) => {
                Ok(self.pod.await_address(self.pod_index, *address).await?)
            }
        }
    }

    async fn create(
        &mut self,
        pod: (&str, MacAddr),
        host: (&str, MacAddr),
        mtu: u32,
    ) -> Result<(), Error> {
        let options = VethOptions {
            mtu: Some(mtu),
            mac: Some(pod.1),
            peer_mac: Some(host.1),
            peer_netns: Some(&self.node),
            up: true,
        };
        if let Err(error) = self.pod.add_veth(pod.0, host.0, options).await {
            return Err(if error.is_present() {
                self.name_the_obstacle(pod.0, host.0).await?
            } else {
                error.into()
            });
        }
        self.host_index = index_of(&self.host, host.0).await?;
        self.pod_index = index_of(&self.pod, pod.0).await?;
        Ok(())
    }

    /// "File exists" does not say which of the two names is taken.
    async fn name_the_obstacle(&self, pod: &str, host: &str) -> Result<Error, Error> {
        let message = if self.pod.link(pod).await?.is_some() {
            format!("interface {pod} exists in the pod's namespace already; it stays as it is")
        } else {
            format!("link {host} exists on the node already: an ADD was interrupted; run DEL first")
        };
        Ok(Error::new(Code::AlreadyAttached, message))
    }

    async fn pod_gateway(&self, gateway: IpAddr) -> Result<(), Error> {
        // IPv6 needs none: the gateway is link-local.
        if gateway.is_ipv4() {
            self.pod
                .add_route(&gateway_route(gateway, self.pod_index))
                .await?;
        }
        Ok(())
    }
}

async fn index_of(netlink: &Netlink, name: &str) -> Result<u32, Error> {
    match netlink.link(name).await? {
        Some(link) => Ok(link.index),
        None => {
            let message = format!("link {name} vanished while it was set up");
            Err(Error::new(Code::Kernel, message))
        }
    }
}

/// `169.254.1.1 dev eth0 scope link`.
pub fn gateway_route(gateway: IpAddr, link: u32) -> Route {
    Route {
        link: Some(link),
        scope: Scope::Link,
        ..Route::new(gateway.into(), ROUTE_PROTOCOL)
    }
}

/// `default via GATEWAY dev eth0 onlink`.
pub fn default_route(destination: IpNetwork, gateway: IpAddr, link: u32) -> Route {
    Route {
        gateway: Some(gateway),
        link: Some(link),
        onlink: true,
        ..Route::new(destination, ROUTE_PROTOCOL)
    }
}

/// `POD dev swX scope link` on the node.
pub fn host_route(address: IpAddr, link: u32) -> Route {
    Route {
        link: Some(link),
        // The kernel keeps no scope for IPv6 routes.
        scope: if address.is_ipv4() {
            Scope::Link
        } else {
            Scope::Global
        },
        ..Route::new(address.into(), ROUTE_PROTOCOL)
    }
}
