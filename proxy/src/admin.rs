//! The two HTTP servers of the daemon: health for load balancers and kubelets, metrics for Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::Mode;
use crate::health::{Health, Verdict};
use crate::metrics::{KubeProxyMetrics, exposition};
use crate::task::blocking;

/// Opens a listening socket, or says which flag asked for an address that is not to be had.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| anyhow::anyhow!("cannot listen on {address} (--{flag}): {e}"))
}

/// Serves `/healthz` and `/livez` until the task is dropped.
pub async fn serve_health(listener: TcpListener, health: Health, metrics: KubeProxyMetrics) {
    if let Err(error) = axum::serve(listener, health_router(health, metrics)).await {
        tracing::error!(%error, "the health server stopped");
    }
}

fn health_router(health: Health, metrics: KubeProxyMetrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state((health, metrics))
}

async fn healthz(State((health, metrics)): State<(Health, KubeProxyMetrics)>) -> Response {
    let verdict = health.healthz(SystemTime::now());
    metrics.healthz_answered(verdict.healthy);
    answer(verdict)
}

async fn livez(State((health, metrics)): State<(Health, KubeProxyMetrics)>) -> Response {
    let verdict = health.livez(SystemTime::now());
    metrics.livez_answered(verdict.healthy);
    answer(verdict)
}

fn answer(verdict: Verdict) -> Response {
    let status = if verdict.healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")],
        Json(verdict),
    )
        .into_response()
}

/// Serves `/metrics`, `/proxyMode` and `/configz` (which shows the mode in force) until the task is dropped.
pub async fn serve_metrics(
    listener: TcpListener,
    registry: Arc<Registry>,
    mode: watch::Receiver<Mode>,
    configz: impl Fn(Mode) -> Value + Clone + Send + Sync + 'static,
) {
    let shown = mode.clone();
    let configz = move || {
        let value = configz(*shown.borrow());
        async move { Json(value) }
    };
    let mode = move || {
        let name = mode.borrow().as_str();
        async move { name }
    };
    let router = Router::new()
        .route("/configz", get(configz))
        .route("/metrics", get(metrics))
        .route("/proxyMode", get(mode))
        .with_state(registry);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the metrics server stopped");
    }
}

/// Beside the threads that follow the API: with many Services there is much to be counted.
async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = blocking(move || exposition(&registry)).await;
    ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response()
}
