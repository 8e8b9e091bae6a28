//! The server as its caller holds it.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use seaway_store::Store;
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::bootstrap;
use crate::config::Config;
use crate::handlers;
use crate::identity::Identity;
use crate::pki::{self, Authority, PkiError, Subject};
use crate::serve::{self, ServeError};
use crate::{expiry, files};

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot write the kubeconfig")]
    Kubeconfig(#[from] files::FileError),
    #[error("cannot create the objects that every cluster has: {0}")]
    Bootstrap(String),
}

/// What handlers share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) ranges: Arc<crate::allocate::Ranges>,
    pub(crate) agents: Agents,
    /// Ends watches and background work.
    pub(crate) stopping: CancellationToken,
}

/// A Kubernetes-compatible API server over a [`Store`].
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
    authority: Arc<Authority>,
}

impl ApiServer {
    /// Makes the authority if there is none, writes `admin.kubeconfig`, and creates what every cluster has: the four
    /// namespaces, Service `default/kubernetes` and its EndpointSlice.
    pub async fn new(store: Store, config: Config) -> Result<Self, StartError> {
        let authority = Authority::open(&config.data_dir)?;
        write_admin_kubeconfig(&authority, &config)?;
        let shared = Shared {
            agents: Agents::new(&authority, config.dialer.clone())?,
            ranges: Arc::new(config.ranges.clone()),
            store,
            config,
            stopping: CancellationToken::new(),
        };
        bootstrap::run(&shared)
            .await
            .map_err(|failure| StartError::Bootstrap(failure.to_string()))?;
        Ok(Self {
            shared: Arc::new(shared),
            authority: Arc::new(authority),
        })
    }

    /// The API as a service that asks every request for an [`Identity`] among its extensions.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback(entry)
            .with_state(self.shared.clone())
    }

    /// The API for components in this process (controllers): a tower service, for `kube::Client::new`, whose requests
    /// pass the same checks as those from outside, in the name of [`Identity::in_process`].
    pub fn in_process_client(&self) -> Router {
        self.router().layer(axum::Extension(Identity::in_process()))
    }

    /// Serves TLS on the listeners until `shutdown`; watches end then, and connections get a few seconds to finish.
    pub async fn serve(
        &self,
        listeners: Vec<TcpListener>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let names = serving_names(&self.shared.config, &listeners);
        let tls = serve::tls_config(&self.authority, names)?;
        let expiry = tokio::spawn(expiry::run(self.shared.clone()));
        let result = serve::serve(
            self.router(),
            tls,
            listeners,
            shutdown,
            self.shared.stopping.clone(),
        )
        .await;
        self.shared.stopping.cancel();
        if let Err(error) = expiry.await {
            tracing::error!(%error, "the expiry of Events ended badly");
        }
        result
    }

    /// The certificate authority, for issuing kubeconfigs while the server runs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

async fn entry(State(shared): State<Arc<Shared>>, request: Request) -> axum::response::Response {
    handlers::handle(shared, request).await
}

fn write_admin_kubeconfig(authority: &Authority, config: &Config) -> Result<(), StartError> {
    let user = "seaway-admin";
    let leaf = authority.issue(&Subject {
        user: user.into(),
        groups: vec!["system:masters".into()],
        client: true,
        ..Subject::default()
    })?;
    let server = config
        .admin_server
        .clone()
        .unwrap_or_else(|| format!("https://{}", config.advertise_address));
    let text = pki::render_kubeconfig(authority, &leaf, user, &server);
    files::write_private(&config.data_dir.join("admin.kubeconfig"), text.as_bytes())?;
    Ok(())
}

fn serving_names(config: &Config, listeners: &[TcpListener]) -> Vec<String> {
    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .map(str::to_owned)
    .into();
    names.push(config.advertise_address.ip().to_string());
    names.extend(
        config
            .ranges
            .services
            .iter()
            .map(|range| range.member(0).to_string()),
    );
    let bound = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok());
    names.extend(
        bound
            .map(|address| address.ip())
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    names.extend(config.serving_names.iter().cloned());
    names.sort();
    names.dedup();
    names
}
