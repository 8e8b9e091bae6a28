//! The way from the node's loopback to an API server that is given: bytes in, bytes out, TLS untouched.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
use kube::config::Kubeconfig;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::control::{host_and_port, write_private};
use super::wiring::Node;

/// Relays until it is dropped.
#[derive(Debug)]
pub struct Relay(JoinHandle<()>);

impl Relay {
    /// Starts it for the server of the kubeconfig `given`, and writes to `out` the one by which the node reaches it.
    pub fn start(node: &Node, given: &Path, out: &Path) -> Result<Self> {
        let mut kubeconfig = Kubeconfig::read_from(given)?;
        let listener = node
            .netns()?
            .run(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
        let address = listener.local_addr()?;
        let server = redirect(&mut kubeconfig, address)
            .with_context(|| format!("kubeconfig {}", given.display()))?;
        // JSON is YAML, too.
        write_private(out, &serde_json::to_string(&kubeconfig)?)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self(tokio::spawn(relay(listener, server))))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the current cluster be reached at `address`; the name that its certificate must have stays. Answers where
/// it really is.
fn redirect(kubeconfig: &mut Kubeconfig, address: SocketAddr) -> Result<(String, u16)> {
    let current = kubeconfig
        .current_context
        .clone()
        .context("no current context")?;
    let cluster = kubeconfig
        .contexts
        .iter()
        .find(|context| context.name == current)
        .and_then(|context| Some(context.context.as_ref()?.cluster.clone()))
        .with_context(|| format!("no context {current}"))?;
    let cluster = kubeconfig
        .clusters
        .iter_mut()
        .find(|named| named.name == cluster)
        .and_then(|named| named.cluster.as_mut())
        .with_context(|| format!("no cluster {cluster}"))?;
    let url = cluster
        .server
        .clone()
        .context("the cluster has no server")?;
    let server = host_and_port(&url)?;
    cluster
        .tls_server_name
        .get_or_insert_with(|| server.0.clone());
    cluster.server = Some(format!("https://{address}"));
    Ok(server)
}

async fn relay(listener: TcpListener, server: (String, u16)) {
    while let Ok((mut near, _)) = listener.accept().await {
        let server = server.clone();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(server).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            copy_bidirectional(&mut near, &mut far).await
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_still_checked_against_the_real_name() {
        let mut kubeconfig: Kubeconfig = serde_json::from_value(serde_json::json!({
            "current-context": "a",
            "contexts": [{ "name": "a", "context": { "cluster": "c", "user": "u" } }],
            "clusters": [{ "name": "c", "cluster": { "server": "https://api.example:6443" } }],
        }))
        .unwrap();
        let address = "127.0.0.1:1234".parse().unwrap();
        let server = redirect(&mut kubeconfig, address).unwrap();
        assert_eq!(server, ("api.example".to_owned(), 6443));
        let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:1234"));
        assert_eq!(cluster.tls_server_name.as_deref(), Some("api.example"));
    }
}
