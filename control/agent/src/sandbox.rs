//! Network namespaces of Pods: made, adopted, removed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use seaway_kernel::NetNs;
use tracing::{info, warn};
use uuid::Uuid;

use crate::cni::exec::addresses;
use crate::cni::{Attachment, ConfigError, ExecError, Plugins, PortMapping, config};
use crate::pod::view::host_network;
use crate::records::{self, PodDir, SandboxRecord};

/// The interface that CNI makes in a Pod.
const IFNAME: &str = "eth0";

/// Digits of the sandbox id in the name of its namespace.
const SHORT_ID: usize = 12;

/// A sandbox could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Plugin(#[from] ExecError),
    #[error(transparent)]
    Kernel(#[from] seaway_kernel::Error),
    #[error(transparent)]
    Record(#[from] records::Error),
    #[error("the network plugins gave the pod no address")]
    NoAddress,
}

/// How sandboxes are made on this node.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    plugins: Plugins,
    conf_dir: PathBuf,
    netns_prefix: String,
    boot_id: String,
    node_ips: Vec<IpAddr>,
}

impl Sandboxes {
    pub fn new(
        conf_dir: PathBuf,
        bin_dir: PathBuf,
        netns_prefix: String,
        boot_id: String,
        node_ips: Vec<IpAddr>,
    ) -> Self {
        Self {
            plugins: Plugins::new(bin_dir),
            conf_dir,
            netns_prefix,
            boot_id,
            node_ips,
        }
    }

    /// Makes the sandbox of a Pod and returns its addresses. What an earlier attempt left is removed first; after an
    /// error nothing is left, or the record of what could not be removed.
    pub async fn set_up(&self, pod: &Pod, dir: &PodDir) -> Result<Vec<IpAddr>, Error> {
        self.tear_down(pod, dir).await?;
        let id = Uuid::new_v4().simple().to_string();
        let mut record = SandboxRecord {
            netns: None,
            id,
            boot_id: self.boot_id.clone(),
            list: None,
            port_mappings: port_mappings(pod),
            result: None,
        };
        if host_network(pod) {
            record.result = Some(serde_json::Value::Null);
            dir.save_sandbox(&record)?;
            return Ok(self.node_ips.clone());
        }
        let list = config::load(&self.conf_dir)?;
        let name = format!("{}{}", self.netns_prefix, &record.id[..SHORT_ID]);
        record.netns = Some(name.clone());
        record.list = Some(list.clone());
        // Before anything exists, so that it can be found whatever happens.
        dir.save_sandbox(&record)?;
        match self.attach(pod, &name, &record, &list).await {
            Ok((result, ips)) => {
                record.result = Some(result);
                dir.save_sandbox(&record)?;
                Ok(ips)
            }
            Err(error) => {
                if let Err(second) = self.tear_down(pod, dir).await {
                    warn!("clean-up after a failed network set-up: {second}");
                }
                Err(error)
            }
        }
    }

    async fn attach(
        &self,
        pod: &Pod,
        name: &str,
        record: &SandboxRecord,
        list: &config::NetworkList,
    ) -> Result<(serde_json::Value, Vec<IpAddr>), Error> {
        NetNs::create(name)?;
        let args = cni_args(pod, &record.id);
        let netns = path_of(name);
        let attachment = attachment(record, &netns, &args);
        let result = self.plugins.add(list, &attachment).await?;
        let ips = addresses(&result);
        if ips.is_empty() {
            return Err(Error::NoAddress);
        }
        Ok((result, ips))
    }

    /// Removes the sandbox; it is fine if there is none. DEL runs even when the namespace is gone, so that the address is
    /// given back; after an error the record stays and this can be called again.
    pub async fn tear_down(&self, pod: &Pod, dir: &PodDir) -> Result<(), Error> {
        let Some(record) = dir.sandbox() else {
            return Ok(());
        };
        if let Some(name) = &record.netns {
            let path = path_of(name);
            let netns = if NetNs::named(name).is_ok() {
                path.as_str()
            } else {
                ""
            };
            if let Some(list) = &record.list {
                let args = cni_args(pod, &record.id);
                let attachment = attachment(&record, netns, &args);
                self.plugins
                    .del(list, record.result.as_ref(), &attachment)
                    .await?;
            }
            NetNs::delete(name)?;
        }
        dir.remove_sandbox()?;
        Ok(())
    }

    /// The addresses of a sandbox that an earlier agent left complete and that is still there. Its network is checked;
    /// a complaint is only logged, since a Pod that answers is better than a rebuilt one.
    pub async fn adopt(&self, pod: &Pod, dir: &PodDir) -> Option<Vec<IpAddr>> {
        let record = dir.sandbox()?;
        let result = record.result.as_ref()?;
        let Some(name) = &record.netns else {
            return Some(self.node_ips.clone());
        };
        if record.boot_id != self.boot_id || NetNs::named(name).is_err() {
            info!(
                netns = name,
                "the pod's network namespace is gone: it will be made anew"
            );
            return None;
        }
        if let Some(list) = &record.list {
            let args = cni_args(pod, &record.id);
            let netns = path_of(name);
            let attachment = attachment(&record, &netns, &args);
            if let Err(error) = self.plugins.check(list, result, &attachment).await {
                warn!(
                    netns = name,
                    "the network of an adopted pod is not as it was made: {error}"
                );
            }
        }
        Some(addresses(result))
    }

    /// The namespace that a Pod's processes run in; the node's own for a Pod on the host network.
    pub fn netns(dir: &PodDir) -> Result<NetNs, Error> {
        match dir.sandbox().and_then(|record| record.netns) {
            Some(name) => Ok(NetNs::named(&name)?),
            None => Ok(NetNs::current()?),
        }
    }

    /// Whether a Pod can be given a network now; the reason if not.
    pub fn network_ready(&self) -> Result<(), ConfigError> {
        config::load(&self.conf_dir).map(drop)
    }

    /// The boot that this agent runs in.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

fn path_of(name: &str) -> String {
    Path::new("/run/netns").join(name).display().to_string()
}

fn attachment<'a>(
    record: &'a SandboxRecord,
    netns: &'a str,
    args: &'a [(String, String)],
) -> Attachment<'a> {
    Attachment {
        container_id: &record.id,
        netns,
        ifname: IFNAME,
        args,
        port_mappings: &record.port_mappings,
    }
}

/// `CNI_ARGS` as containerd and CRI-O send them.
fn cni_args(pod: &Pod, id: &str) -> Vec<(String, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", text(&pod.metadata.namespace)),
        ("K8S_POD_NAME", text(&pod.metadata.name)),
        ("K8S_POD_INFRA_CONTAINER_ID", id.to_owned()),
        ("K8S_POD_UID", text(&pod.metadata.uid)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(PortMapping {
                host_port: port
                    .host_port
                    .and_then(|p| u16::try_from(p).ok())
                    .filter(|p| *p > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: port
                    .protocol
                    .as_deref()
                    .unwrap_or("TCP")
                    .to_ascii_lowercase(),
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
            })
        })
        .collect()
}
