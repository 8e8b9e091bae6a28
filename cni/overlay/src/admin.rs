//! The HTTP server of the daemon: `/healthz`, `/livez`, `/metrics`, and `/status` for the `status` command.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::metrics::exposition;
use crate::probe::path::Health;
use crate::probe::{Probes, Record};

/// The state of a peer for which everything is in place.
pub const CONNECTED: &str = "connected";

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
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u16,
    /// Whether checksums of packets in the tunnel are left to the network card.
    pub checksum_offload: bool,
    /// VXLAN packets from nobody's address that were dropped.
    pub strangers: u64,
    pub peers: Vec<PeerStatus>,
    /// What keeps this node from serving, or failed.
    pub errors: Vec<String>,
    /// What it serves without.
    pub warnings: Vec<String>,
}

/// One other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    pub name: String,
    /// The far end of the tunnel.
    pub address: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// `connected`, or why not.
    pub state: String,
    /// `tunnel`, `direct`, or both where it depends on the family.
    pub via: Option<String>,
    /// Whether it answers probes.
    pub reachable: Health,
    /// The largest packet that arrives there.
    pub mtu: Option<u32>,
    /// Whether checksums that are left to the network card arrive right there.
    pub checksum_offload: Health,
    pub last_change: Option<Change>,
}

impl PeerStatus {
    /// Of a peer of which nothing else is known.
    pub fn new(name: &str, state: String) -> Self {
        Self {
            name: name.to_owned(),
            address: None,
            pod_cidrs: Vec::new(),
            state,
            via: None,
            reachable: Health::Unknown,
            mtu: None,
            checksum_offload: Health::Unknown,
            last_change: None,
        }
    }

    /// With what probing found.
    fn add(&mut self, record: &Record) {
        let found = record.found;
        self.reachable = found.reachable;
        self.mtu = found.mtu;
        self.checksum_offload = found.offload;
        let newer = |change: &Change| change.at < record.since;
        if self.last_change.as_ref().is_none_or(newer) {
            let what = match (found.reachable, found.mangled) {
                (Health::Broken, _) => "does not answer probes",
                (_, true) => "checksums arrive wrong, whoever makes them",
                (_, false) => "probed",
            };
            self.last_change = Some(Change {
                at: record.since,
                what: what.into(),
            });
        }
    }
}

/// What is new of peers.
#[derive(Debug)]
pub enum Peers {
    /// These are all.
    All(BTreeMap<Arc<str>, PeerStatus>),
    /// The others are as they were; `None` of one that is gone.
    Some(BTreeMap<Arc<str>, Option<PeerStatus>>),
}

impl Default for Peers {
    fn default() -> Self {
        Self::All(BTreeMap::new())
    }
}

/// What happened last, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub at: Timestamp,
    pub what: String,
}

impl Change {
    /// Something that happens now.
    pub fn now(what: String) -> Self {
        let at = Timestamp::now();
        Self { at, what }
    }
}

/// The last status, kept up to date peer by peer.
#[derive(Debug, Default)]
struct Board {
    /// Without the peers.
    status: Status,
    peers: BTreeMap<Arc<str>, PeerStatus>,
    connected: usize,
}

impl Board {
    /// Puts what is new of a peer in place; answers its state if that is bad news.
    fn put(&mut self, name: Arc<str>, peer: Option<PeerStatus>) -> Option<String> {
        let is_connected = |peer: &&PeerStatus| peer.state == CONNECTED;
        let trouble = peer.as_ref().map(|peer| peer.state.clone());
        self.connected += peer.iter().filter(is_connected).count();
        let before = match peer {
            Some(peer) => self.peers.insert(name, peer),
            None => self.peers.remove(&name),
        };
        self.connected -= before.iter().filter(is_connected).count();
        let former = before.map(|peer| peer.state);
        trouble.filter(|state| state != CONNECTED && former.as_ref() != Some(state))
    }

    fn put_all(&mut self, peers: Peers) -> Vec<String> {
        let new = match peers {
            Peers::Some(new) => new,
            Peers::All(all) => {
                let gone = self.peers.keys().filter(|name| !all.contains_key(*name));
                let gone: Vec<_> = gone.map(|name| (name.clone(), None)).collect();
                let all = all.into_iter().map(|(name, peer)| (name, Some(peer)));
                gone.into_iter().chain(all).collect()
            }
        };
        let told = new
            .into_iter()
            .filter_map(|(name, peer)| self.put(name, peer));
        told.collect()
    }

    /// Those that take part come first.
    fn peers(&self) -> Vec<PeerStatus> {
        let (there, left_out): (Vec<_>, Vec<_>) =
            self.peers.values().cloned().partition(|p| p.via.is_some());
        [there, left_out].concat()
    }
}

/// The status as the loop, the prober and the server share it.
#[derive(Debug, Clone)]
pub struct Shared {
    board: Arc<Mutex<Board>>,
    strangers: Arc<AtomicU64>,
    probes: Option<Probes>,
}

impl Shared {
    /// With what probing finds, if there is probing.
    pub fn new(probes: Option<Probes>) -> Self {
        Self {
            board: Arc::default(),
            strangers: Arc::default(),
            probes,
        }
    }

    /// What the last comparison found of this node.
    pub fn get(&self) -> Status {
        self.lock().status.clone()
    }

    /// How many peers are connected.
    pub fn connected(&self) -> usize {
        self.lock().connected
    }

    /// Puts a new one in place; answers what bad news of peers there is.
    pub fn set(&self, status: Status, peers: Peers) -> Vec<String> {
        let mut board = self.lock();
        board.status = status;
        board.put_all(peers)
    }

    /// So many packets of strangers were dropped.
    pub fn set_strangers(&self, count: u64) {
        self.strangers.store(count, Ordering::Relaxed);
    }

    /// The same with what is known beyond the comparison.
    fn whole(&self) -> Status {
        let mut status = {
            let board = self.lock();
            Status {
                peers: board.peers(),
                ..board.status.clone()
            }
        };
        status.strangers = self.strangers.load(Ordering::Relaxed);
        let records = self.probes.as_ref().map(Probes::records);
        let records = records.unwrap_or_default();
        for peer in &mut status.peers {
            if let Some(record) = records.get(peer.name.as_str()) {
                peer.add(record);
            }
        }
        status
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // Nothing in here panics between two changes of it.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, shared: Shared, registry: Arc<Registry>) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(|| async { "ok" }))
        .route(
            "/status",
            get(async |State(s): State<Shared>| Json(s.whole())),
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
