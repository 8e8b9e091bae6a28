//! The way to node agents: HTTPS with a client certificate of the cluster's authority.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::{Authority, PkiError, Subject};
use crate::status::Status;

/// The port of a node's agent, where its Node does not say.
const AGENT_PORT: u16 = 10250;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection being made.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Opens connections to nodes. A server whose nodes live in another network namespace brings its own.
pub trait Dialer: Send + Sync {
    fn dial(&self, address: SocketAddr) -> Dialing;
}

/// From the namespace of the process.
pub struct Direct;

impl Dialer for Direct {
    fn dial(&self, address: SocketAddr) -> Dialing {
        Box::pin(TcpStream::connect(address))
    }
}

/// Sends requests to agents.
pub(crate) struct Agents {
    tls: TlsConnector,
    dialer: Arc<dyn Dialer>,
}

/// An agent could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("node {0:?} has no InternalIP address")]
    NoAddress(String),
    #[error("dial tcp {0}: no answer in {CONNECT_TIMEOUT:?}")]
    Timeout(SocketAddr),
    #[error("dial tcp {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("node at {0}: {1}")]
    Http(SocketAddr, hyper::Error),
    #[error(transparent)]
    Request(#[from] http::Error),
}

impl From<AgentError> for Status {
    fn from(error: AgentError) -> Self {
        Self::internal(error)
    }
}

impl Agents {
    pub(crate) fn new(authority: &Authority, dialer: Arc<dyn Dialer>) -> Result<Self, PkiError> {
        let tls = |error: rustls::Error| PkiError::Tls(error.to_string());
        let leaf = authority.issue(&Subject {
            user: "kube-apiserver-kubelet-client".into(),
            groups: vec!["system:masters".into()],
            client: true,
            ..Subject::default()
        })?;
        let (certificates, key) = leaf.to_rustls()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_root_certificates(authority.roots()?)
            .with_client_auth_cert(certificates, key)
            .map_err(tls)?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            dialer,
        })
    }

    /// GET from the agent of a node; the body streams.
    pub(crate) async fn get(
        &self,
        node: &Value,
        path_and_query: &str,
    ) -> Result<Response<Incoming>, AgentError> {
        let address = address(node)?;
        let connect = async {
            let tcp = self.dialer.dial(address).await?;
            self.tls
                .connect(ServerName::IpAddress(address.ip().into()), tcp)
                .await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| AgentError::Timeout(address))?
            .map_err(|error| AgentError::Connect(address, error))?;
        let http = |error| AgentError::Http(address, error);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to a node's agent ended");
            }
        });
        let request = Request::get(path_and_query).header(http::header::HOST, address.to_string());
        sender
            .send_request(request.body(Body::empty())?)
            .await
            .map_err(http)
    }
}

fn address(node: &Value) -> Result<SocketAddr, AgentError> {
    let addresses = node
        .pointer("/status/addresses")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let internal = addresses
        .iter()
        .filter(|address| address["type"] == "InternalIP");
    let ip: Option<IpAddr> = internal
        .filter_map(|address| address["address"].as_str()?.parse().ok())
        .next();
    let port = node
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(Value::as_u64);
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(AGENT_PORT);
    let ip = ip.ok_or_else(|| AgentError::NoAddress(crate::meta::name(node).to_owned()))?;
    Ok(SocketAddr::new(ip, port))
}
