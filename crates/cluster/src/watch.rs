//! Follows one kind of a Kubernetes API for ever.
//!
//! kube's `watcher` knows list, watch and resume; this adds what it leaves to its user: backoff, the
//! deletions of a relist, and a way out of the states in which it would turn in circles.

mod policy;
#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event, InitialListStrategy};
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
use policy::{Backoff, Remedy, remedy};

/// Length of one watch. Also how soon a connection that died in silence is noticed; kube's default of
/// 290 s would leave a node with old rules for five minutes after a partition.
const WATCH_SECONDS: u32 = 120;

/// A server that takes `sendInitialEvents` for an unknown parameter streams changes only and would be waited
/// for for ever: the longest silence before the paged list is tried instead.
const STREAMING_LIST_SILENCE: Duration = Duration::from_secs(15);

/// Selectors of a watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
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

/// Follows kind `K` until the receiver of `events` is dropped.
pub(crate) async fn follow<K>(
    client: Client,
    selection: Selection,
    events: mpsc::Sender<InputEvent>,
    gate: SyncGate,
) where
    K: Resource<DynamicType = ()> + Into<Object>,
    K: DeserializeOwned + Clone + fmt::Debug + Send + 'static,
{
    let mut follower = Follower {
        kind: K::kind(&()).into_owned(),
        names: Interner::default(),
        ledger: Ledger::default(),
        events,
        gate: Some(gate),
    };
    let mut backoff = Backoff::default();
    let mut strategy = InitialListStrategy::StreamingList;
    let api: Api<K> = Api::all(client);
    loop {
        let config = selection.config(strategy.clone());
        match follower.run(api.clone(), config, &mut backoff).await {
            End::ReceiverGone => return,
            End::Relist => {}
            End::PagedList => strategy = InitialListStrategy::ListWatch,
        }
    }
}

/// Why one watcher has to be replaced.
enum End {
    ReceiverGone,
    Relist,
    PagedList,
}

struct Follower {
    kind: String,
    names: Interner,
    ledger: Ledger,
    events: mpsc::Sender<InputEvent>,
    /// Taken when this kind has been listed for the first time.
    gate: Option<SyncGate>,
}

impl Follower {
    async fn run<K>(&mut self, api: Api<K>, config: watcher::Config, backoff: &mut Backoff) -> End
    where
        K: Resource<DynamicType = ()> + Into<Object>,
        K: DeserializeOwned + Clone + fmt::Debug + Send + 'static,
    {
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
                () = self.events.closed() => return End::ReceiverGone,
            };
            let event = match next {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => {
                    let remedy = remedy(&error, streaming);
                    if remedy == Remedy::PagedList {
                        info!(kind = self.kind, %error, "the server does not stream lists: listing page by page");
                        return End::PagedList;
                    }
                    let delay = backoff.next();
                    warn!(
                        kind = self.kind, error = %policy::describe(&error), in_ms = delay.as_millis(),
                        "lost the watch: {remedy}"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = self.events.closed() => return End::ReceiverGone,
                    }
                    if remedy == Remedy::Relist {
                        return End::Relist;
                    }
                    continue;
                }
                Ok(None) => return End::Relist,
                Err(_) => {
                    warn!(
                        kind = self.kind,
                        "the server left a streaming list without its end: listing page by page"
                    );
                    return End::PagedList;
                }
            };
            match event {
                // A stream that ends without an error before its list is complete is begun again at once by
                // kube: not in a tight loop.
                Event::Init if listing => tokio::time::sleep(backoff.next()).await,
                Event::Init => listing = true,
                Event::InitDone => listing = false,
                _ => {}
            }
            if self.handle(event).await.is_err() {
                return End::ReceiverGone;
            }
        }
    }

    async fn handle<K: Into<Object>>(
        &mut self,
        event: Event<K>,
    ) -> Result<(), mpsc::error::SendError<InputEvent>> {
        match event {
            Event::Init => self.ledger.begin_list(),
            Event::InitApply(object) | Event::Apply(object) => {
                let conversion = convert(&object.into(), &mut self.names);
                if let Some(event) = self.ledger.take(conversion) {
                    self.events.send(event).await?;
                }
            }
            Event::Delete(object) => {
                let reference = object.into().reference(&mut self.names);
                if let Some(event) = self.ledger.remove(&reference) {
                    self.events.send(event).await?;
                }
            }
            Event::InitDone => {
                let gone = self.ledger.end_list();
                debug!(kind = self.kind, gone = gone.len(), "listed");
                for event in gone {
                    self.events.send(event).await?;
                }
                if self.gate.take().is_some_and(|gate| gate.arrive()) {
                    self.events.send(InputEvent::Synced).await?;
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
