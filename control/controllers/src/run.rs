//! The driver that all controllers share: watches into the image, changes into queues, plans into requests.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::stream::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events;
use crate::execute::{self, Effect, OpError};
use crate::object::{Cached, Kind, ObjRef, Object};
use crate::plan::{Clock, Controller, EventDraft, Op, Plan, Step};
use crate::queue::Queue;
use crate::state::{Change, State};

/// Requests of one plan that run at once.
const CONCURRENT: usize = 16;
/// Events that may wait to be written; more are dropped, as Events are advice.
const WAITING_EVENTS: usize = 1024;
/// How often the image forgets what was never confirmed.
const SWEEP: Duration = Duration::from_secs(30);

/// Runs the controllers until `shutdown`.
pub(crate) async fn run(
    client: Client,
    controllers: Vec<Box<dyn Controller>>,
    shutdown: CancellationToken,
) {
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let driver = Arc::new(Driver {
        client: client.clone(),
        state: RwLock::default(),
        start: Instant::now(),
        events: sender,
        lanes: controllers
            .into_iter()
            .map(Lane::new)
            .map(Arc::new)
            .collect(),
        unsynced: AtomicUsize::new(Kind::WATCHED.len()),
        synced: CancellationToken::new(),
    });
    // Dropped, and with it every task, when this future ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.clone().follow::<Namespace>());
    tasks.spawn(driver.clone().follow::<Node>());
    tasks.spawn(driver.clone().follow::<Pod>());
    tasks.spawn(driver.clone().follow::<Service>());
    tasks.spawn(driver.clone().follow::<ConfigMap>());
    tasks.spawn(driver.clone().follow::<Secret>());
    tasks.spawn(driver.clone().follow::<ServiceAccount>());
    tasks.spawn(driver.clone().follow::<EndpointSlice>());
    tasks.spawn(driver.clone().follow::<Lease>());
    tasks.spawn(driver.clone().follow::<Deployment>());
    tasks.spawn(driver.clone().follow::<ReplicaSet>());
    tasks.spawn(driver.clone().sweep());
    tasks.spawn(events::write(client, receiver, shutdown.clone()));
    for lane in &driver.lanes {
        let workers = lock(&lane.controller).workers();
        for _ in 0..workers {
            tasks.spawn(driver.clone().work(lane.clone()));
        }
    }
    tokio::select! {
        () = shutdown.cancelled() => {}
        Some(Err(error)) = tasks.join_next() => {
            tracing::error!(%error, "a controller task died");
        }
    }
}

/// One controller with its queue.
struct Lane {
    name: &'static str,
    controller: Mutex<Box<dyn Controller>>,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Creates without an answer, repeated under the same name before the key is planned again.
    unanswered: Mutex<HashMap<ObjRef, Vec<Op>>>,
}

impl Lane {
    fn new(controller: Box<dyn Controller>) -> Self {
        Self {
            name: controller.name(),
            controller: Mutex::new(controller),
            queue: Mutex::default(),
            wake: Notify::new(),
            unanswered: Mutex::default(),
        }
    }
}

struct Driver {
    client: Client,
    state: RwLock<State>,
    start: Instant,
    events: mpsc::Sender<events::Sent>,
    lanes: Vec<Arc<Lane>>,
    unsynced: AtomicUsize,
    /// Cancelled once every kind has been listed: no plan is made from half an image.
    synced: CancellationToken,
}

impl Driver {
    fn clock(&self) -> Clock {
        Clock {
            wall: Timestamp::now(),
            steady: self.start.elapsed(),
        }
    }

    /// Follows one kind for ever.
    async fn follow<K>(self: Arc<Self>)
    where
        K: Cached + Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
        Object: From<K>,
    {
        let api = Api::<K>::all(self.client.clone());
        let stream = watcher(api, watcher::Config::default()).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut listed = Vec::new();
        let mut first = true;
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => listed.push(Object::from(object)),
                Ok(watcher::Event::InitDone) => {
                    let listed = std::mem::take(&mut listed);
                    self.update(|state| state.relisted(K::KIND, listed));
                    if std::mem::take(&mut first)
                        && self.unsynced.fetch_sub(1, Ordering::AcqRel) == 1
                    {
                        tracing::info!("controllers in sync");
                        self.synced.cancel();
                    }
                }
                Ok(watcher::Event::Apply(object)) => {
                    self.update(|state| state.observed(object.into()));
                }
                Ok(watcher::Event::Delete(object)) => {
                    let now = self.start.elapsed();
                    self.update(|state| state.vanished(&object.into(), now));
                }
                Err(error) => tracing::warn!(kind = K::KIND.as_str(), %error, "watch interrupted"),
            }
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.update(|state| state.sweep(self.start.elapsed()));
        }
    }

    /// Changes the image and tells every controller whom it concerns.
    fn update<C: IntoIterator<Item = Change>>(&self, change: impl FnOnce(&mut State) -> C) {
        let changes: Vec<Change> = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut state).into_iter().collect()
        };
        if changes.is_empty() {
            return;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        for lane in &self.lanes {
            let controller = lock(&lane.controller);
            let mut queue = lock(&lane.queue);
            for change in &changes {
                for key in controller.touched(change, &state) {
                    queue.touch(key);
                    lane.wake.notify_one();
                }
            }
        }
    }

    /// One worker of one controller.
    async fn work(self: Arc<Self>, lane: Arc<Lane>) {
        let lane = &*lane;
        self.synced.cancelled().await;
        loop {
            let key = self.next(lane).await;
            match self.reconcile(lane, &key).await {
                Ok(again_in) => {
                    let again_at = again_in.map(|delay| self.start.elapsed() + delay);
                    lock(&lane.queue).done(&key, again_at);
                }
                Err(error) => {
                    let pause = lock(&lane.queue).retry(&key, self.start.elapsed());
                    if error.is_race() {
                        tracing::debug!(controller = lane.name, %key, %error, ?pause, "planned again");
                    } else {
                        tracing::warn!(controller = lane.name, %key, %error, ?pause, "failed, will be tried again");
                    }
                }
            }
            // The key may have been touched meanwhile, or another worker may sleep until a later time than ours.
            lane.wake.notify_one();
        }
    }

    async fn next(&self, lane: &Lane) -> ObjRef {
        loop {
            let woken = lane.wake.notified();
            let now = self.start.elapsed();
            let (key, due) = {
                let mut queue = lock(&lane.queue);
                (queue.take(now), queue.next_due())
            };
            if let Some(key) = key {
                lane.wake.notify_one();
                return key;
            }
            match due {
                Some(due) => {
                    let pause = due.saturating_sub(now);
                    let _ = tokio::time::timeout(pause, woken).await;
                }
                None => woken.await,
            }
        }
    }

    async fn reconcile(&self, lane: &Lane, key: &ObjRef) -> Result<Option<Duration>, OpError> {
        let unanswered = lock(&lane.unanswered).remove(key).unwrap_or_default();
        for op in unanswered {
            self.execute(lane, key, &Step { op, event: None }).await?;
        }
        let plan = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            lock(&lane.controller).plan(key, &state, self.clock())
        };
        let Plan {
            mut steps,
            parallel_from,
            events,
            again_in,
        } = plan;
        for event in events {
            self.record(lane, event);
        }
        let parallel = steps.split_off(parallel_from.unwrap_or(steps.len()).min(steps.len()));
        for step in &steps {
            self.execute(lane, key, step).await?;
        }
        // The first failure keeps further requests from starting, but none is abandoned halfway: an abandoned
        // create would be one whose outcome nobody knows.
        let failed = AtomicBool::new(false);
        let outcomes: Vec<Result<(), OpError>> = futures::stream::iter(parallel)
            .map(|step| self.unless_failed(lane, key, step, &failed))
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        outcomes.into_iter().collect::<Result<(), OpError>>()?;
        Ok(again_in)
    }

    async fn unless_failed(
        &self,
        lane: &Lane,
        key: &ObjRef,
        step: Step,
        failed: &AtomicBool,
    ) -> Result<(), OpError> {
        if failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let outcome = self.execute(lane, key, &step).await;
        failed.fetch_or(outcome.is_err(), Ordering::AcqRel);
        outcome
    }

    async fn execute(&self, lane: &Lane, key: &ObjRef, step: &Step) -> Result<(), OpError> {
        match execute::execute(&self.client, &step.op).await {
            Ok(effect) => {
                let now = self.start.elapsed();
                match effect {
                    Effect::Wrote(object) => self.update(|state| state.wrote(object, now)),
                    Effect::Removed { at, uid } => {
                        self.update(|state| state.deleted(&at, &uid, now));
                    }
                    Effect::Nothing => {}
                }
                if let Some(event) = &step.event {
                    self.record(lane, event.clone());
                }
                Ok(())
            }
            Err(error) => {
                if let (OpError::Unanswered(_), Op::Create { .. }) = (&error, &step.op) {
                    let mut unanswered = lock(&lane.unanswered);
                    unanswered
                        .entry(key.clone())
                        .or_default()
                        .push(step.op.clone());
                }
                let event = {
                    let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
                    let message = error.to_string();
                    lock(&lane.controller).failed(key, &step.op, &message, &state)
                };
                if let Some(event) = event {
                    self.record(lane, event);
                }
                Err(error)
            }
        }
    }

    fn record(&self, lane: &Lane, event: EventDraft) {
        // Full means a flood; the Events already waiting tell of it.
        let _ = self.events.try_send((lane.name, event, self.clock()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
