//! Follows one kind of a Kubernetes API for ever.
//!
//! kube's `watcher` knows list, watch and resume; this adds what it leaves to its user: backoff, the
//! deletions of a relist, and a way out of the states in which it would turn in circles.

mod policy;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::runtime::watcher::{self, InitialListStrategy};
use kube::{Api, Client, Resource};
use seaway_model::InputEvent;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::convert::{Object, convert};
use crate::intern::Interner;
use crate::ledger::Ledger;
use crate::source::SyncGate;
use crate::wire;
use policy::{Backoff, Remedy, Said, remedy};

pub use kube::runtime::watcher::Event;

/// Length of one watch. Also how soon a connection that died in silence is noticed; kube's default of
/// 290 s would leave a node with old rules for five minutes after a partition.
const WATCH_SECONDS: u32 = 120;

/// A server that takes `sendInitialEvents` for an unknown parameter streams changes only and would be waited
/// for for ever: the longest silence before the paged list is tried instead.
const STREAMING_LIST_SILENCE: Duration = Duration::from_secs(15);

/// Events in flight between the connection and its consumer.
const CHANNEL_SIZE: usize = 256;

/// Selectors of a watch, in the API's syntax.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub labels: Option<String>,
    pub fields: Option<String>,
}

impl Selection {
    fn config(&self, strategy: InitialListStrategy) -> watcher::Config {
        watcher::Config {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            initial_list_strategy: strategy,
            ..watcher::Config::default()
        }
    }
}

/// Follows kind `K`; must be called inside a tokio runtime. Errors are logged and waited out. A list comes as
/// `Init`, `InitApply` for each object, `InitDone`; objects known before which it does not mention are gone.
pub fn objects<K>(api: Api<K>, selection: Selection) -> mpsc::Receiver<Event<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + 'static,
{
    let (events, receiver) = mpsc::channel(CHANNEL_SIZE);
    tokio::spawn(async move {
        let mut state = State::default();
        let mut strategy = InitialListStrategy::StreamingList;
        loop {
            let config = selection.config(strategy.clone());
            match forward(api.clone(), config, &mut state, &events).await {
                End::ReceiverGone => return,
                End::Relist => {}
                End::PagedList => strategy = InitialListStrategy::ListWatch,
            }
        }
    });
    receiver
}

/// What outlives one watcher.
#[derive(Default)]
struct State {
    backoff: Backoff,
    said: Said,
    /// Everything has been listed once.
    listed: bool,
}

/// Why one watcher has to be replaced.
enum End {
    ReceiverGone,
    Relist,
    PagedList,
}

async fn forward<K>(
    api: Api<K>,
    config: watcher::Config,
    state: &mut State,
    events: &mpsc::Sender<Event<K>>,
) -> End
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + 'static,
{
    let kind = K::kind(&());
    let streaming = config.initial_list_strategy == InitialListStrategy::StreamingList;
    let mut stream = pin!(watcher::watcher(api, config));
    let mut listing = false;
    loop {
        let patience = if streaming && listing {
            STREAMING_LIST_SILENCE
        } else {
            Duration::MAX
        };
        let next = tokio::select! {
            next = tokio::time::timeout(patience, stream.next()) => next,
            () = events.closed() => return End::ReceiverGone,
        };
        let event = match next {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => {
                let remedy = remedy(&error, streaming);
                let error = policy::describe(&error);
                if remedy == Remedy::PagedList {
                    info!(%kind, error, "the server does not stream lists: listing page by page");
                    return End::PagedList;
                }
                let delay = state.backoff.next();
                if !state.said.is_news(&error, Instant::now()) {
                    debug!(%kind, error, in_ms = delay.as_millis(), "still so");
                } else if state.listed {
                    warn!(%kind, error, "lost the watch: {remedy}");
                } else {
                    warn!(%kind, error, "cannot list yet: trying again");
                }
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = events.closed() => return End::ReceiverGone,
                }
                if remedy == Remedy::Relist {
                    return End::Relist;
                }
                continue;
            }
            Ok(None) => return End::Relist,
            Err(_) => {
                warn!(%kind, "the server left a streaming list without its end: listing page by page");
                return End::PagedList;
            }
        };
        // kube says `Init` before it has asked.
        if !matches!(event, Event::Init) && state.said.over() {
            info!(%kind, "the API answers again");
        }
        match event {
            // A stream that ends without an error before its list is complete is begun again at once by
            // kube: not in a tight loop.
            Event::Init if listing => tokio::time::sleep(state.backoff.next()).await,
            Event::Init => listing = true,
            Event::InitDone => {
                listing = false;
                state.listed = true;
            }
            _ => {}
        }
        if events.send(event).await.is_err() {
            return End::ReceiverGone;
        }
    }
}

/// Follows kind `K` and hands on model inputs until the receiver of `inputs` is dropped.
pub(crate) async fn follow<K>(
    client: Client,
    selection: Selection,
    inputs: mpsc::Sender<InputEvent>,
    gate: SyncGate,
) where
    K: Resource<DynamicType = ()> + Into<Object>,
    K: DeserializeOwned + Clone + fmt::Debug + Send + 'static,
{
    let mut events = objects::<K>(Api::all(client), selection);
    let mut follower = Follower {
        names: Interner::default(),
        ledger: Ledger::default(),
        inputs,
        gate: Some(gate),
    };
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = follower.inputs.closed() => return,
        };
        let Some(event) = event else { return };
        if follower.handle(event).await.is_err() {
            return;
        }
    }
}

struct Follower {
    names: Interner,
    ledger: Ledger,
    inputs: mpsc::Sender<InputEvent>,
    /// Taken when this kind has been listed for the first time.
    gate: Option<SyncGate>,
}

impl Follower {
    async fn handle<K: Resource<DynamicType = ()> + Into<Object>>(
        &mut self,
        event: Event<K>,
    ) -> Result<(), mpsc::error::SendError<InputEvent>> {
        match event {
            Event::Init => self.ledger.begin_list(),
            Event::InitApply(object) | Event::Apply(object) => {
                let conversion = convert(&object.into(), &mut self.names);
                for input in self.ledger.take(conversion) {
                    self.inputs.send(input).await?;
                }
            }
            Event::Delete(object) => {
                let reference = object.into().reference(&mut self.names);
                for input in self.ledger.remove(&reference) {
                    self.inputs.send(input).await?;
                }
            }
            Event::InitDone => {
                let gone = self.ledger.end_list();
                debug!(kind = %K::kind(&()), gone = gone.len(), "listed");
                for input in gone {
                    self.inputs.send(input).await?;
                }
                if self.gate.take().is_some_and(|gate| gate.arrive()) {
                    self.inputs.send(InputEvent::Synced).await?;
                }
            }
        }
        Ok(())
    }
}

impl From<wire::Service> for Object {
    fn from(service: wire::Service) -> Self {
        Self::Service(service)
    }
}

impl From<wire::EndpointSlice> for Object {
    fn from(slice: wire::EndpointSlice) -> Self {
        Self::Slice(slice)
    }
}

impl From<wire::Node> for Object {
    fn from(node: wire::Node) -> Self {
        Self::Node(node)
    }
}
