//! The API server: one of our own, or one that is given. The node reaches either on its own loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node as NodeObject};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use seaway_lab::eventually;
use serde_json::json;

use super::relay::Relay;
use super::wiring::{CLUSTER_CIDR, NODE_IP, Node, SERVICE_CIDR};
use crate::bench::server::{self, Home, Server};

/// For the server to come up.
const LIMIT: Duration = Duration::from_secs(30);

/// An API server with a Namespace and a Node for this run.
pub struct Control {
    pub client: Client,
    /// As the proxy reaches the server.
    pub kubeconfig: PathBuf,
    /// The Namespace of all that a scenario creates, and the name of the Node.
    pub name: String,
    /// One of the two; ended when dropped.
    server: Option<Server>,
    relay: Option<Relay>,
}

impl Control {
    /// Our own server, or with `given` the one that this kubeconfig names.
    pub async fn new(node: &Node, given: Option<&Path>) -> Result<Self> {
        let name = node.name.clone();
        let (server, relay, kubeconfig, config) = match given {
            None => {
                let netns = node.netns()?;
                let home = Home {
                    files: &node.scratch,
                    netns: &netns,
                    cgroup: Some(node.server_cgroup()),
                };
                let flags = [
                    format!("--cluster-cidr={CLUSTER_CIDR}"),
                    format!("--service-cidr={SERVICE_CIDR}"),
                ];
                let (server, kubeconfig) = Server::start(home, &flags).await?;
                let config = server::config(&kubeconfig).await?;
                (Some(server), None, kubeconfig, config)
            }
            Some(given) => {
                let kubeconfig = node.scratch.join("kubeconfig");
                let relay = Relay::start(node, given, &kubeconfig)?;
                (None, Some(relay), kubeconfig, server::config(given).await?)
            }
        };
        let control = Self {
            client: Client::try_from(config)?,
            kubeconfig,
            name,
            server,
            relay,
        };
        eventually("an answer of the API server", LIMIT, async || {
            control.client.apiserver_version().await
        })
        .await?;
        control.objects().await?;
        Ok(control)
    }

    async fn objects(&self) -> Result<()> {
        let namespace = json!({ "metadata": { "name": self.name } });
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let params = PostParams::default();
        namespaces
            .create(&params, &serde_json::from_value(namespace)?)
            .await
            .context("create the Namespace")?;
        let nodes: Api<NodeObject> = Api::all(self.client.clone());
        let node: NodeObject = serde_json::from_value(json!({
            "metadata": { "name": self.name, "labels": { "kubernetes.io/hostname": self.name } },
            "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] },
        }))?;
        let mut node = nodes
            .create(&params, &node)
            .await
            .context("create the Node")?;
        // kube-proxy waits for it.
        node.status = serde_json::from_value(json!({
            "addresses": [{ "type": "InternalIP", "address": NODE_IP }],
        }))?;
        let params = kube::api::PatchParams::default();
        let patch = kube::api::Patch::Merge(json!({ "status": node.status }));
        nodes
            .patch_status(&self.name, &params, &patch)
            .await
            .context("set the Node's address")?;
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.relay.is_none() {
            // With our server goes all that is in it.
            self.server.take();
            return;
        }
        // On a thread of its own: a runtime may not block one of its own threads.
        let (client, name) = (self.client.clone(), self.name.clone());
        let runtime = tokio::runtime::Handle::current();
        let delete = move || {
            runtime.block_on(async {
                let params = DeleteParams::default();
                let namespaces: Api<Namespace> = Api::all(client.clone());
                let nodes: Api<NodeObject> = Api::all(client);
                let ends = [
                    namespaces.delete(&name, &params).await.err(),
                    nodes.delete(&name, &params).await.err(),
                ];
                for error in ends.into_iter().flatten() {
                    eprintln!("{name} is left in the API server: {error}");
                }
            });
        };
        if std::thread::spawn(delete).join().is_err() {
            eprintln!("{} is left in the API server", self.name);
        }
    }
}

/// Host and port of a kubeconfig's server, as in `https://host:6443`.
pub fn host_and_port(url: &str) -> Result<(String, u16)> {
    let Some(rest) = url.strip_prefix("https://") else {
        bail!("server {url}: only https is understood");
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse()?),
        _ => (authority, 443),
    };
    let host = host.trim_matches(['[', ']']);
    Ok((host.to_owned(), port))
}

/// Writes a file that only we may read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_url_is_host_and_port() {
        let pair = |url| host_and_port(url).unwrap();
        assert_eq!(pair("https://10.0.0.1:6443"), ("10.0.0.1".into(), 6443));
        assert_eq!(pair("https://api.example/"), ("api.example".into(), 443));
        assert_eq!(pair("https://[fd00::1]:6443"), ("fd00::1".into(), 6443));
        assert!(host_and_port("http://10.0.0.1").is_err());
    }
}
