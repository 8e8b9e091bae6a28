//! N Services with hand-made EndpointSlices, and changes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::control::Control;
use super::pod::PORT;
use super::wiring::{PEER_IP, Role, crowd};

/// Writes under way at once while Services are created.
const AT_ONCE: usize = 64;

/// The port of every Service.
const SERVICE_PORT: u16 = 80;

/// The Service of [`Services::create_remote`].
const REMOTE: &str = "remote";

/// What was created so far.
#[derive(Debug)]
pub struct Services {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    node: String,
    endpoints: usize,
    addresses: BTreeMap<usize, SocketAddr>,
    /// Those with one endpoint, a backend that moves.
    targets: BTreeSet<usize>,
}

impl Services {
    /// None yet; each will have this many endpoints.
    pub fn new(control: &Control, endpoints: usize) -> Self {
        Self {
            services: Api::namespaced(control.client.clone(), &control.name),
            slices: Api::namespaced(control.client.clone(), &control.name),
            node: control.name.clone(),
            endpoints,
            addresses: BTreeMap::new(),
            targets: BTreeSet::new(),
        }
    }

    /// Declares the targets of so many Services, before these are created.
    pub fn plan(&mut self, count: usize) {
        self.targets.extend(targets(count));
    }

    /// Creates those with these numbers.
    pub async fn create(&mut self, numbers: Range<usize>) -> Result<()> {
        let made: Vec<_> = stream::iter(numbers)
            .map(|number| self.create_one(number))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.addresses.extend(made);
        Ok(())
    }

    async fn create_one(&self, number: usize) -> Result<(usize, SocketAddr)> {
        let name = name(number);
        let params = PostParams::default();
        let service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "ports": [{ "port": SERVICE_PORT, "targetPort": PORT }] },
        }))?;
        let service = self
            .services
            .create(&params, &service)
            .await
            .with_context(|| format!("create Service {name}"))?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip);
        let ip: IpAddr = ip.context("no cluster IP")?.parse()?;
        let first = if self.targets.contains(&number) {
            Role::First.address()
        } else {
            crowd(number * self.endpoints)
        };
        self.slices
            .create(&params, &self.slice(number, first)?)
            .await
            .with_context(|| format!("create the EndpointSlice of {name}"))?;
        Ok((number, SocketAddr::new(ip, SERVICE_PORT)))
    }

    /// The slice with `first`, and the other endpoints that a Service has if it is no target.
    fn slice(&self, number: usize, first: Ipv4Addr) -> Result<EndpointSlice> {
        let others = match self.targets.contains(&number) {
            true => 1..1,
            false => 1..self.endpoints,
        };
        let others = others.map(|other| crowd(number * self.endpoints + other));
        let endpoints: Vec<_> = std::iter::once(first)
            .chain(others)
            .map(|address| {
                json!({
                    "addresses": [address],
                    "conditions": { "ready": true, "serving": true, "terminating": false },
                    "nodeName": self.node,
                })
            })
            .collect();
        Ok(serde_json::from_value(json!({
            "metadata": {
                "name": format!("{}-1", name(number)),
                "labels": {
                    "kubernetes.io/service-name": name(number),
                    "endpointslice.kubernetes.io/managed-by": "seaway-bench",
                },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "", "port": PORT, "protocol": "TCP" }],
            "endpoints": endpoints,
        }))?)
    }

    /// One more, whose only endpoint is on another node: its node port, over UDP.
    pub async fn create_remote(&self) -> Result<u16> {
        let params = PostParams::default();
        let service = serde_json::from_value(json!({
            "metadata": { "name": REMOTE },
            "spec": {
                "type": "NodePort",
                "ports": [{ "port": SERVICE_PORT, "targetPort": PORT, "protocol": "UDP" }],
            },
        }))?;
        let service = self.services.create(&params, &service).await;
        let service = service.with_context(|| format!("create Service {REMOTE}"))?;
        let slice = serde_json::from_value(json!({
            "metadata": {
                "name": format!("{REMOTE}-1"),
                "labels": { "kubernetes.io/service-name": REMOTE },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "", "port": PORT, "protocol": "UDP" }],
            "endpoints": [{
                "addresses": [PEER_IP],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": "elsewhere",
            }],
        }))?;
        let made = self.slices.create(&params, &slice).await;
        made.with_context(|| format!("create the EndpointSlice of {REMOTE}"))?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.first().and_then(|port| port.node_port);
        let port = port.context("no node port")?;
        Ok(u16::try_from(port)?)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Where Services are reached, in the order of their numbers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.values().copied().collect()
    }

    /// Where these are reached.
    pub fn addresses_of(&self, numbers: &[usize]) -> Result<Vec<SocketAddr>> {
        let found = numbers.iter().map(|number| {
            let found = self.addresses.get(number).copied();
            found.with_context(|| format!("there is no Service {number}"))
        });
        found.collect()
    }

    /// Replaces the first endpoint of a Service, for a target the only one.
    pub async fn point(&self, number: usize, endpoint: Ipv4Addr) -> Result<()> {
        let slice = self.slice(number, endpoint)?;
        let name = slice.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        let put = self.slices.replace(&name, &params, &slice).await;
        put.map(drop)
            .with_context(|| format!("change EndpointSlice {name}"))
    }

    /// Changes others than the targets, one after the other, so many a second, without an end. Counts in `written`.
    pub async fn churn(&self, per_second: u32, written: &AtomicUsize) -> Result<()> {
        let others: Vec<usize> = self
            .addresses
            .keys()
            .copied()
            .filter(|number| !self.targets.contains(number))
            .collect();
        if others.is_empty() {
            bail!("too few Services to change others than the targets");
        }
        let mut beat = tokio::time::interval(Duration::from_secs(1) / per_second);
        // Neighbours in number are not neighbours in whatever order a proxy keeps.
        let step = others.len() / 7 * 3 + 1;
        loop {
            beat.tick().await;
            let turn = written.fetch_add(1, Ordering::Relaxed);
            if let Some(number) = others.get(turn * step % others.len()) {
                let endpoint = crowd(number * self.endpoints + 1000 + turn);
                self.point(*number, endpoint).await?;
            }
        }
    }
}

/// The first, one in the middle, and the last of so many Services.
pub fn targets(count: usize) -> [usize; 3] {
    [0, count / 2, count.saturating_sub(1)]
}

fn name(number: usize) -> String {
    format!("s{number:05}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_spread() {
        assert_eq!(targets(10_000), [0, 5_000, 9_999]);
        assert_eq!(targets(10), [0, 5, 9]);
    }
}
