//! `healthCheckNodePort`: a small HTTP server per Service, by which a load balancer learns whether this node has
//! endpoints of it (`pkg/proxy/healthcheck/service_health.go`).
//!
//! One task owns all of it and is told changes over a channel: a port that cannot be had is a report, never a stop,
//! and is tried again.

mod listen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use seaway_model::{HealthCheck, ObjectKey};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::health::Health;

/// How long to wait before a port that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A port could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub service: ObjectKey,
    pub port: u16,
    pub reason: String,
}

/// Where the servers listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// Everywhere, in both families.
    All,
    /// At these only (`--nodeport-addresses`).
    Only(Vec<IpAddr>),
}

/// Tells the servers what changed. When the last of these is dropped, they stop.
#[derive(Debug, Clone)]
pub struct HealthChecks(mpsc::UnboundedSender<(ObjectKey, Option<HealthCheck>)>);

impl HealthChecks {
    /// Starts the task; `failures` hears of each port that cannot be had, once until that changes. Listens in the
    /// network namespace of the runtime's threads.
    pub fn start(
        addresses: Addresses,
        health: Health,
        failures: mpsc::UnboundedSender<Failure>,
    ) -> Self {
        let (changes, receiver) = mpsc::unbounded_channel();
        let servers = Servers {
            addresses,
            health,
            failures,
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
        };
        tokio::spawn(servers.run(receiver));
        Self(changes)
    }

    /// A Service wants this now; `None` if it is gone or has no health check port.
    pub fn set(&self, service: &ObjectKey, check: Option<HealthCheck>) {
        // The task ends only after this.
        _ = self.0.send((service.clone(), check));
    }
}

struct Servers {
    addresses: Addresses,
    health: Health,
    failures: mpsc::UnboundedSender<Failure>,
    open: BTreeMap<ObjectKey, Server>,
    /// Services whose port could not be had, with the last reason.
    refused: BTreeMap<ObjectKey, (HealthCheck, String)>,
}

struct Server {
    port: u16,
    local_endpoints: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Servers {
    async fn run(mut self, mut changes: mpsc::UnboundedReceiver<(ObjectKey, Option<HealthCheck>)>) {
        loop {
            let change = if self.refused.is_empty() {
                changes.recv().await
            } else {
                match tokio::time::timeout(RETRY, changes.recv()).await {
                    Ok(change) => change,
                    Err(_) => {
                        self.retry().await;
                        continue;
                    }
                }
            };
            let Some((service, check)) = change else {
                return;
            };
            self.set(service, check).await;
        }
    }

    async fn set(&mut self, service: ObjectKey, check: Option<HealthCheck>) {
        let Some(check) = check else {
            self.refused.remove(&service);
            self.close(&service).await;
            return;
        };
        match self.open.get(&service) {
            Some(server) if server.port == check.port => {
                server
                    .local_endpoints
                    .store(check.local_ready, Ordering::Relaxed);
            }
            _ => {
                self.close(&service).await;
                self.open(service, check);
            }
        }
    }

    /// Closes the listeners for good before it returns, so that another Service may have the port.
    async fn close(&mut self, service: &ObjectKey) {
        let Some(mut server) = self.open.remove(service) else {
            return;
        };
        tracing::debug!(%service, port = server.port, "closing a health check port");
        for task in server.tasks.drain(..) {
            task.abort();
            // Cancelled, as asked.
            _ = task.await;
        }
        self.retry().await;
    }

    async fn retry(&mut self) {
        for (service, (check, _)) in self.refused.clone() {
            self.open(service, check);
        }
    }

    fn open(&mut self, service: ObjectKey, check: HealthCheck) {
        let listeners = match listen::open(&self.addresses, check.port) {
            Ok(listeners) => listeners,
            Err(error) => {
                let holder = self.open.iter().find(|(_, s)| s.port == check.port);
                let reason = match holder {
                    Some((other, _)) => format!("Service {other} has the same port"),
                    None => error.to_string(),
                };
                self.refuse(service, check, reason);
                return;
            }
        };
        tracing::debug!(%service, port = check.port, "opening a health check port");
        self.refused.remove(&service);
        let local_endpoints = Arc::new(AtomicUsize::new(check.local_ready));
        let router = Router::new().fallback(answer).with_state(Answer {
            service: service.clone(),
            local_endpoints: local_endpoints.clone(),
            health: self.health.clone(),
        });
        let serve = |listener| {
            let router = router.clone();
            tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::warn!(%error, "a health check server stopped");
                }
            })
        };
        let server = Server {
            port: check.port,
            local_endpoints,
            tasks: listeners.into_iter().map(serve).collect(),
        };
        self.open.insert(service, server);
    }

    fn refuse(&mut self, service: ObjectKey, check: HealthCheck, reason: String) {
        let told = self
            .refused
            .insert(service.clone(), (check, reason.clone()))
            .is_some_and(|(earlier, text)| earlier.port == check.port && text == reason);
        if !told {
            // Nobody may be listening any more at shutdown.
            _ = self.failures.send(Failure {
                service,
                port: check.port,
                reason,
            });
        }
    }
}

#[derive(Clone)]
struct Answer {
    service: ObjectKey,
    local_endpoints: Arc<AtomicUsize>,
    health: Health,
}

/// Every path has the same answer, as kube-proxy's.
async fn answer(State(answer): State<Answer>) -> Response {
    let count = answer.local_endpoints.load(Ordering::Relaxed);
    // A draining node still serves what it has: the load balancer hears of the drain by /healthz.
    let healthy = answer.health.is_serving(SystemTime::now());
    let status = if count > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "service": {"namespace": answer.service.namespace(), "name": answer.service.name()},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    });
    (
        status,
        [
            (
                header::X_CONTENT_TYPE_OPTIONS.as_str(),
                "nosniff".to_owned(),
            ),
            ("x-load-balancing-endpoint-weight", count.to_string()),
        ],
        Json(body),
    )
        .into_response()
}
