use std::cell::RefCell;
use std::rc::Rc;

use prometheus_client::registry::Registry;
use seaway_model::testing::plain;
use seaway_model::{Family, Protocol};

use super::*;
use crate::changes::Changes;
use crate::cli::Mode;
use crate::switch::Teller;

/// A data plane that writes down what it is asked to do and fails as often as told.
#[derive(Clone, Default)]
struct Recorder {
    plans: Rc<RefCell<Vec<(Change, usize)>>>,
    fail: Rc<RefCell<u32>>,
    attention: Rc<tokio::sync::Notify>,
}

impl Dataplane for Recorder {
    type Plan = String;
    type Held = String;

    async fn observe(&mut self) -> Result<(), ApplyError> {
        Ok(())
    }

    fn plan(&self, desired: &Desired, change: &Change) -> String {
        self.plans
            .borrow_mut()
            .push((change.clone(), desired.services.len()));
        String::new()
    }

    fn changes(&self, _: &String) -> Changes {
        Changes::default()
    }

    async fn apply(&mut self, _: String) -> Result<Report, ApplyError> {
        let mut fail = self.fail.borrow_mut();
        if *fail > 0 {
            *fail -= 1;
            return Err(ApplyError::Failed {
                what: "restore".into(),
                reason: "resource busy".into(),
            });
        }
        Ok(Report::default())
    }

    async fn watch(&mut self) -> Result<String, ApplyError> {
        self.attention.notified().await;
        Ok("chain SEAWAY-CANARY is gone".into())
    }

    async fn held(&mut self) -> Result<String, ApplyError> {
        Ok(String::new())
    }

    async fn cleanup(&mut self) -> Result<Vec<String>, ApplyError> {
        Ok(Vec::new())
    }
}

fn service(name: &str) -> InputEvent {
    let port = plain::port("", Protocol::Tcp, 80);
    let service = plain::service(name, vec!["10.96.0.10".parse().unwrap()], vec![port]);
    InputEvent::Service(service.key.clone(), Some(service))
}

fn slice(service: &str, address: &str) -> InputEvent {
    let endpoint = plain::endpoint(address.parse().unwrap(), "rs", None);
    let target = plain::target("", Protocol::Tcp, 8080);
    let name = format!("{service}-1");
    let slice = plain::slice(&name, service, Family::V4, target, vec![endpoint]);
    InputEvent::Slice(slice.key.clone(), Some(slice))
}

/// Runs the loop over `script`, a future that feeds events, and returns what the data plane was asked.
async fn run(
    recorder: Recorder,
    script: impl AsyncFnOnce(mpsc::Sender<InputEvent>),
) -> Vec<(Change, usize)> {
    let health = Health::default();
    let metrics = Metrics::new(&mut Registry::default());
    let mut reconciler = Reconciler::new(
        NodeSettings::new("n1"),
        recorder.clone(),
        health.clone(),
        metrics,
    );
    let (sender, mut receiver) = mpsc::channel(16);
    let (_orders, mut orders) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let serving = async {
        loop {
            match reconciler.run(&mut receiver, &mut orders, &stop).await {
                Ended::FirstSync => {}
                ended => break ended,
            }
        }
    };
    let (ended, ()) = tokio::join!(serving, async {
        script(sender.clone()).await;
        stop.cancel();
    });
    assert!(matches!(ended, Ended::Shutdown), "{ended:?}");
    recorder.plans.take()
}

fn only(name: &str) -> Change {
    Change::Services(BTreeSet::from([ObjectKey::new("default", name)]))
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_programmed_before_synced_then_everything_then_only_what_changed() {
    let plans = run(Recorder::default(), async |events| {
        events.send(service("a")).await.unwrap();
        events.send(service("b")).await.unwrap();
        settle().await;
        events.send(InputEvent::Synced).await.unwrap();
        settle().await;
        events.send(slice("a", "10.244.1.2")).await.unwrap();
        settle().await;
        // The same again changes nothing.
        events.send(slice("a", "10.244.1.2")).await.unwrap();
        settle().await;
    })
    .await;
    assert_eq!(plans, [(Change::Full, 2), (only("a"), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_costs_one_sync() {
    let plans = run(Recorder::default(), async |events| {
        events.send(InputEvent::Synced).await.unwrap();
        settle().await;
        for name in ["a", "b", "c"] {
            events.send(service(name)).await.unwrap();
        }
        settle().await;
    })
    .await;
    assert_eq!(plans.len(), 2, "{plans:?}");
    assert_eq!(plans[1].1, 3);
}

#[tokio::test]
async fn what_a_batch_has_no_room_for_stays_in_the_channel() {
    let (sender, mut events) = mpsc::channel(BATCH + 1);
    for number in 0..=BATCH {
        sender.try_send(service(&format!("s{number}"))).unwrap();
    }
    let metrics = Metrics::new(&mut Registry::default());
    let mut reconciler = Reconciler::new(
        NodeSettings::new("n1"),
        Recorder::default(),
        Health::default(),
        metrics,
    );
    let first = events.try_recv().unwrap();
    reconciler.take_in(first, &mut events);
    assert_eq!(events.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_retried_in_full_and_keeps_what_came_meanwhile() {
    let recorder = Recorder::default();
    *recorder.fail.borrow_mut() = 2;
    let plans = run(recorder, async |events| {
        events.send(service("a")).await.unwrap();
        events.send(InputEvent::Synced).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        events.send(service("b")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    })
    .await;
    assert_eq!(plans.first(), Some(&(Change::Full, 1)));
    assert_eq!(plans.last(), Some(&(Change::Full, 2)));
    assert_eq!(plans.len(), 3, "{plans:?}");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_flush_leads_to_a_full_comparison() {
    let recorder = Recorder::default();
    let attention = recorder.attention.clone();
    let plans = run(recorder, async |events| {
        events.send(service("a")).await.unwrap();
        events.send(InputEvent::Synced).await.unwrap();
        settle().await;
        attention.notify_one();
        settle().await;
    })
    .await;
    assert_eq!(plans, [(Change::Full, 1), (Change::Full, 1)]);
}

/// An order waits until the kernel has everything; what comes after the change goes to the new data plane alone, and
/// nothing is derived twice.
#[tokio::test(start_paused = true)]
async fn a_change_of_mode_waits_for_the_first_sync_and_keeps_what_was_taken_in() {
    let (old, new) = (Recorder::default(), Recorder::default());
    let metrics = Metrics::new(&mut Registry::default());
    let settings = NodeSettings::new("n1");
    let health = Health::default();
    let mut reconciler = Reconciler::new(settings, old.clone(), health.clone(), metrics);
    let (events, mut inputs) = mpsc::channel(16);
    let (sender, mut orders) = mpsc::channel(1);
    let order = Order {
        mode: Mode::Ebpf,
        teller: Teller::log(),
    };
    sender.try_send(order).unwrap();
    events.try_send(service("a")).unwrap();
    let stop = CancellationToken::new();
    let early = tokio::time::timeout(
        Duration::from_secs(1),
        reconciler.run(&mut inputs, &mut orders, &stop),
    );
    assert!(early.await.is_err(), "nothing is in force yet");
    events.try_send(InputEvent::Synced).unwrap();
    let ended = reconciler.run(&mut inputs, &mut orders, &stop).await;
    assert!(matches!(ended, Ended::FirstSync), "{ended:?}");
    // Flows of the other mode are to be taken over first.
    assert!(!health.healthz(SystemTime::now()).healthy);
    let ended = reconciler.run(&mut inputs, &mut orders, &stop).await;
    assert!(
        matches!(
            ended,
            Ended::Switch(Order {
                mode: Mode::Ebpf,
                ..
            })
        ),
        "{ended:?}"
    );

    assert!(health.healthz(SystemTime::now()).healthy);
    let (_, desired) = reconciler.parts();
    assert_eq!(desired.services.len(), 1);
    let place =
        crate::conntrack::Table::new(crate::conntrack::Metrics::new(&mut Registry::default()));
    let cleaner = Cleaner::start(crate::conntrack::Settings::default(), Arc::new(place));
    let settings = NodeSettings::new("n1");
    let mut reconciler = reconciler.replace(settings, new.clone(), cleaner, None);
    events.try_send(service("b")).unwrap();
    let more = tokio::time::timeout(
        Duration::from_secs(1),
        reconciler.run(&mut inputs, &mut orders, &stop),
    );
    assert!(more.await.is_err(), "it goes on");
    assert_eq!(old.plans.take(), [(Change::Full, 1)]);
    assert_eq!(new.plans.take(), [(only("b"), 2)]);
}
