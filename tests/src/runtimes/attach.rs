//! Pods of a lab that the plugin attaches.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use seaway_lab::Lab;
use seaway_model::ownership::CONFLIST_FILE;
use serde_json::{Map, Value};

use super::libcni::addresses;
use super::list::NEW;
use super::{Attachment, Libcni, List, Namespace};

/// Attaches a pod to a node of a lab, as a runtime does it whose cache is in that directory; its first address. It goes back with the lab.
///
/// # Errors
///
/// If the node has no configuration, or the plugin fails.
pub async fn attach(
    lab: &Lab,
    node: &str,
    cache: PathBuf,
    pod: &Namespace,
    capabilities: Map<String, Value>,
) -> Result<IpAddr> {
    let all = attach_addresses(lab, node, cache, pod, capabilities).await?;
    all.first().copied().context("a pod has no address")
}

/// The same; all of its addresses.
///
/// # Errors
///
/// If the node has no configuration, or the plugin fails.
pub async fn attach_addresses(
    lab: &Lab,
    node: &str,
    cache: PathBuf,
    pod: &Namespace,
    capabilities: Map<String, Value>,
) -> Result<Vec<IpAddr>> {
    let files = lab.node_files(node);
    let runtime = Libcni {
        node: lab.node(node)?.netns().clone(),
        path: vec![files.join("cni-bin")],
        cache,
    };
    let list = List::read(&files.join("cni-conf").join(CONFLIST_FILE), NEW)?;
    let attachment = Attachment {
        container_id: pod.name().to_owned(),
        ifname: "eth0".into(),
        netns: pod.path(),
        capabilities,
        ..Attachment::default()
    };
    let result = runtime.add(&list, &attachment).await?;
    Ok(addresses(&result)
        .iter()
        .map(|network| network.ip())
        .collect())
}
