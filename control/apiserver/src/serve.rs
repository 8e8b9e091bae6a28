//! TLS listeners.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::identity::Identity;
use crate::pki::{Authority, PkiError, Subject};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for open connections to finish after the watches have been ended.
const DRAIN: Duration = Duration::from_secs(3);
/// The default window of 64 KiB throttles large lists.
const H2_WINDOW: u32 = 1 << 20;
const H2_STREAMS: u32 = 250;

/// The server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("a listening socket is not usable")]
    Listener(#[from] std::io::Error),
}

/// A serving certificate of the authority, and client certificates of it asked for but not required: health and version
/// are open to all.
pub(crate) fn tls_config(
    authority: &Authority,
    names: Vec<String>,
) -> Result<Arc<ServerConfig>, PkiError> {
    let tls = |error: rustls::Error| PkiError::Tls(error.to_string());
    let leaf = authority.issue(&Subject {
        user: "kube-apiserver".into(),
        names,
        server: true,
        ..Subject::default()
    })?;
    let (certificates, key) = leaf.to_rustls()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()?), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::Tls(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until `shutdown`; then cancels `stopping`, which ends watches, and drains.
pub(crate) async fn serve(
    router: Router,
    tls: Arc<ServerConfig>,
    listeners: Vec<TcpListener>,
    shutdown: CancellationToken,
    stopping: CancellationToken,
) -> Result<(), ServeError> {
    let frontend = Arc::new(Frontend {
        connections: GracefulShutdown::new(),
        router,
        acceptor: TlsAcceptor::from(tls),
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.spawn(accept(listener, frontend.clone(), shutdown.clone()));
    }
    shutdown.cancelled().await;
    stopping.cancel();
    while accepting.join_next().await.is_some() {}
    if let Some(frontend) = Arc::into_inner(frontend) {
        let drained = tokio::time::timeout(DRAIN, frontend.connections.shutdown()).await;
        tracing::debug!(drained = drained.is_ok(), "API server stopped");
    }
    Ok(())
}

/// What every accepted connection is served with.
struct Frontend {
    connections: GracefulShutdown,
    router: Router,
    acceptor: TlsAcceptor,
}

async fn accept(
    listener: tokio::net::TcpListener,
    frontend: Arc<Frontend>,
    shutdown: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let acceptor = frontend.acceptor.clone();
                let router = frontend.router.clone();
                let watcher = frontend.connections.watcher();
                tokio::spawn(async move {
                    if let Err(reason) = connection(stream, &acceptor, router, watcher).await {
                        tracing::debug!(%peer, reason, "connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others may close theirs.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    router: Router,
    watcher: Watcher,
) -> Result<(), String> {
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| "TLS handshake timed out".to_owned())?
        .map_err(|error| format!("TLS handshake failed: {error}"))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let identity = certificates
        .and_then(|certificates| certificates.first())
        .and_then(Identity::of_certificate);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        request.map(Body::new)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(H2_WINDOW)
        .max_concurrent_streams(H2_STREAMS)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    watcher
        .watch(connection.into_owned())
        .await
        .map_err(|error| error.to_string())
}
