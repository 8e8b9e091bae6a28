//! The Pods of a node that have a label, by their addresses. The API server does the selecting, so that what arrives here,
//! and what it costs, is those few alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kube::{Api, Client};
use tokio::sync::watch;

use crate::ip::parse_ip;
use crate::watch::{Event, Selection, objects};
use crate::wire::Pod;

#[cfg(test)]
mod tests;

/// Follows them until every receiver is dropped; must be called inside a tokio runtime. Needs `list` and `watch` of Pods.
pub fn addresses(client: Client, node: &str, label: &str) -> watch::Receiver<BTreeSet<IpAddr>> {
    let selection = Selection {
        labels: Some(label.to_owned()),
        fields: Some(format!("spec.nodeName={node}")),
    };
    let (tell, receiver) = watch::channel(BTreeSet::new());
    tokio::spawn(async move {
        let mut events = objects::<Pod>(Api::all(client), selection);
        let mut known = Known::default();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => known.absorb(event),
                    None => return,
                },
                () = tell.closed() => return,
            }
            tell.send_if_modified(|told| {
                let now = known.addresses();
                let differs = *told != now;
                *told = now;
                differs
            });
        }
    });
    receiver
}

/// Namespace and name.
type Key = (String, String);

/// The Pods known so far.
#[derive(Debug, Default)]
struct Known {
    pods: BTreeMap<Key, BTreeSet<IpAddr>>,
    /// While a list arrives: what it has mentioned.
    listed: Option<BTreeSet<Key>>,
}

impl Known {
    fn absorb(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = Some(BTreeSet::new()),
            Event::InitApply(pod) | Event::Apply(pod) => {
                let key = key(&pod);
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                let ips = pod.status.pod_ips.iter();
                let ips = ips.filter_map(|pod_ip| parse_ip(&pod_ip.ip)).collect();
                self.pods.insert(key, ips);
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.pods.retain(|key, _| listed.contains(key));
                }
            }
            Event::Delete(pod) => {
                self.pods.remove(&key(&pod));
            }
        }
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        self.pods.values().flatten().copied().collect()
    }
}

fn key(pod: &Pod) -> Key {
    let metadata = &pod.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}
