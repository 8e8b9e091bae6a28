//! The HTTP server of the daemon: `/healthz`, `/livez`, `/metrics`, and `/status` for the `status` command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::metrics::exposition;

/// What the last comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub node: String,
    /// Everything wanted is in the kernel. Nodes that are left out do not count: nothing is wanted for them.
    pub in_sync: bool,
    pub address: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    pub uplink: Option<String>,
    pub mtu: Option<u32>,
    pub peers: Vec<PeerStatus>,
    /// What keeps this node from serving, or failed.
    pub errors: Vec<String>,
}

/// One other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    pub name: String,
    pub address: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// `connected`, or why not.
    pub state: String,
}

/// The status as the loop and the server share it.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Status>>);

impl Shared {
    /// The current one.
    pub fn get(&self) -> Status {
        self.lock().clone()
    }

    /// Puts a new one in place.
    pub fn set(&self, status: Status) {
        *self.lock() = status;
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // A panic elsewhere cannot leave a value half-written: it is replaced whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, shared: Shared, registry: Arc<Registry>) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(|| async { "ok" }))
        .route(
            "/status",
            get(async |State(s): State<Shared>| Json(s.get())),
        )
        .with_state(shared)
        .route("/metrics", get(metrics).with_state(registry));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the health server stopped");
    }
}

async fn healthz(State(shared): State<Shared>) -> impl IntoResponse {
    let status = shared.get();
    if status.in_sync {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let reason = if status.errors.is_empty() {
        "the Nodes have not been listed yet".to_owned()
    } else {
        status.errors.join("\n")
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPENMETRICS)], exposition(&registry))
}
