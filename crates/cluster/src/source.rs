//! One interface over both sources.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kube::Client;
use seaway_model::InputEvent;
use tokio::sync::mpsc;
use tracing::info;

use crate::client::{Server, server};
use crate::{manifests, watch, wire};

/// Events in flight between a source and its consumer; a consumer that is busy slows the source down.
const CHANNEL_SIZE: usize = 1024;

/// Why a source cannot be opened. Once opened, a source never fails: it logs, waits and tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        path: PathBuf,
        cause: Box<kube::config::KubeconfigError>,
    },
    #[error(
        "no API server is known: --kubeconfig FILE names one, as do $KUBECONFIG, ~/.kube/config and a pod's service account ({0})"
    )]
    NoKubeconfig(Box<kube::config::InferConfigError>),
    #[error(
        "{url:?} is no address of an API server: expected https://HOST:PORT as `server` of the kubeconfig's cluster"
    )]
    Address { url: String },
    #[error("cannot set up the API client: {0}")]
    Client(Box<kube::Error>),
    #[error("cannot read the manifest directory {}: {cause}", path.display())]
    Manifests {
        path: PathBuf,
        cause: std::io::Error,
    },
}

/// Where inputs come from.
#[derive(Clone)]
pub enum Source {
    /// A Kubernetes API, followed with watches.
    Kube(Server),
    /// A directory of `*.yaml`, `*.yml` and `*.json` files, followed live.
    Manifests(PathBuf),
}

impl Source {
    /// The source that a daemon's `--manifests` and `--kubeconfig` name; the former wins.
    pub async fn open(kubeconfig: Option<&Path>, manifests: Option<&Path>) -> Result<Self, Error> {
        let Some(directory) = manifests else {
            return Ok(Self::Kube(server(kubeconfig).await?));
        };
        match std::fs::read_dir(directory) {
            Ok(_) => Ok(Self::Manifests(directory.to_owned())),
            Err(cause) => Err(Error::Manifests {
                path: directory.to_owned(),
                cause,
            }),
        }
    }
}

/// Whom to wait for, in words.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kube(server) => server.fmt(f),
            Self::Manifests(directory) => write!(f, "the manifests in {}", directory.display()),
        }
    }
}

/// Which Nodes a consumer needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeScope {
    #[default]
    None,
    /// The one of this name: the proxy's own.
    One(String),
    /// All: the overlay's peers.
    All,
}

/// Which kinds a consumer needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    pub services: bool,
    pub slices: bool,
    pub nodes: NodeScope,
}

/// Starts following `source`; must be called inside a tokio runtime.
///
/// [`InputEvent::Synced`] comes exactly once, when every wanted kind has been listed. Deletions are
/// complete: after a lost connection or a restart of the API server the source compares and says what
/// vanished. The events of one object come in order. Everything stops when the receiver is dropped.
pub fn stream(source: Source, wants: Wants) -> mpsc::Receiver<InputEvent> {
    let (events, receiver) = mpsc::channel(CHANNEL_SIZE);
    match source {
        Source::Kube(server) => _ = follow_api(&server.client, wants, &events),
        Source::Manifests(directory) => {
            tokio::spawn(manifests::follow(directory, wants, events));
        }
    }
    receiver
}

/// The same for daemons, which wait for ever: the log says whom for, where the first lists take longer than `silence`.
pub fn stream_telling(
    source: Source,
    wants: Wants,
    silence: Duration,
) -> mpsc::Receiver<InputEvent> {
    let Source::Kube(server) = source else {
        return stream(source, wants);
    };
    let (events, receiver) = mpsc::channel(CHANNEL_SIZE);
    let gate = follow_api(&server.client, wants, &events);
    let events = events.downgrade();
    tokio::spawn(async move {
        tokio::time::sleep(silence).await;
        let is_wanted = events.upgrade().is_some_and(|events| !events.is_closed());
        if is_wanted && !gate.is_open() {
            info!("waiting for the first lists of {server}");
        }
    });
    receiver
}

fn follow_api(client: &Client, wants: Wants, events: &mpsc::Sender<InputEvent>) -> SyncGate {
    let kinds = usize::from(wants.services)
        + usize::from(wants.slices)
        + usize::from(wants.nodes != NodeScope::None);
    let gate = SyncGate::new(kinds);
    if kinds == 0 {
        let events = events.clone();
        tokio::spawn(async move { events.send(InputEvent::Synced).await });
        return gate;
    }
    if wants.services {
        let selection = watch::Selection {
            labels: Some("!service.kubernetes.io/service-proxy-name".to_owned()),
            fields: Some("spec.clusterIP!=None".to_owned()),
        };
        tokio::spawn(watch::follow::<wire::Service>(
            client.clone(),
            selection,
            events.clone(),
            gate.clone(),
        ));
    }
    if wants.slices {
        let selection = watch::Selection {
            labels: Some("!service.kubernetes.io/headless".to_owned()),
            fields: None,
        };
        tokio::spawn(watch::follow::<wire::EndpointSlice>(
            client.clone(),
            selection,
            events.clone(),
            gate.clone(),
        ));
    }
    if wants.nodes != NodeScope::None {
        let fields = match wants.nodes {
            NodeScope::One(name) => Some(format!("metadata.name={name}")),
            _ => None,
        };
        let selection = watch::Selection {
            labels: None,
            fields,
        };
        tokio::spawn(watch::follow::<wire::Node>(
            client.clone(),
            selection,
            events.clone(),
            gate.clone(),
        ));
    }
    gate
}

/// Counts the kinds that have not been listed yet.
#[derive(Clone)]
pub(crate) struct SyncGate(Arc<AtomicUsize>);

impl SyncGate {
    pub(crate) fn new(kinds: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(kinds)))
    }

    /// Every kind has been listed.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// One kind has been listed for the first time; true for the last of them.
    pub(crate) fn arrive(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
