//! The HTTPS endpoint of the node, for the API server: `/containerLogs` as kubelet has it, and `/healthz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query as QueryOf, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::kubeconfig::Identity;
use crate::logs::{self, Query, Registry};

#[cfg(test)]
mod tests;

/// A caller that does not finish its handshake within this is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The endpoint cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        address: SocketAddr,
        cause: std::io::Error,
    },
    #[error("the kubeconfig's {what} cannot be used: {reason}")]
    Identity { what: &'static str, reason: String },
}

/// An endpoint that listens but does not answer yet.
pub struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
}

impl Server {
    /// Binds the address. Only callers with a certificate of the cluster's CA get past the handshake.
    pub async fn bind(
        address: SocketAddr,
        identity: &Identity,
        logs: Registry,
    ) -> Result<Self, Error> {
        let tls = TlsAcceptor::from(Arc::new(tls_config(identity)?));
        let listener = TcpListener::bind(address)
            .await
            .map_err(|cause| Error::Listen { address, cause })?;
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route(
                "/containerLogs/{namespace}/{pod}/{container}",
                get(container_logs),
            )
            .with_state(logs);
        Ok(Self {
            listener,
            tls,
            router,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped.
    pub async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(connection(
                        self.tls.clone(),
                        self.router.clone(),
                        stream,
                        peer,
                    ));
                }
                Err(error) => {
                    // Out of descriptors, most likely: waiting is all that can help.
                    warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn connection(tls: TlsAcceptor, router: Router, stream: TcpStream, peer: SocketAddr) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%peer, "TLS handshake failed: {error}"),
        Err(_) => return debug!(%peer, "TLS handshake timed out"),
    };
    let service = TowerToHyperService::new(router);
    let builder = Builder::new(TokioExecutor::new());
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        debug!(%peer, "connection ended: {error}");
    }
}

fn tls_config(identity: &Identity) -> Result<ServerConfig, Error> {
    let bad = |what| move |reason: String| Error::Identity { what, reason };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&identity.authority) {
        authority
            .map_err(|e| e.to_string())
            .and_then(|authority| roots.add(authority).map_err(|e| e.to_string()))
            .map_err(bad("certificate-authority"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| bad("certificate-authority")(e.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&identity.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad("client-certificate")(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|e| bad("client-key")(e.to_string()))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("client-certificate")(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(|e| bad("client-certificate")(e.to_string()))
}

async fn container_logs(
    State(registry): State<Registry>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    QueryOf(query): QueryOf<Query>,
) -> Response {
    if ![&namespace, &pod, &container]
        .into_iter()
        .all(|name| logs::valid_name(name))
    {
        return (StatusCode::BAD_REQUEST, "not a name of the API\n").into_response();
    }
    match registry.open(&namespace, &pod, &container, &query).await {
        Ok(log) => (
            [(header::CONTENT_TYPE, "text/plain")],
            Body::from_stream(log.stream()),
        )
            .into_response(),
        Err(error) => {
            let code = match error {
                logs::Error::NoPod { .. } => StatusCode::NOT_FOUND,
                logs::Error::Read { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            (code, error.to_string()).into_response()
        }
    }
}
