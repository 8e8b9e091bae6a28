//! Core/v1 Events: repeated ones counted instead of repeated, floods of one object cut off.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::execute;
use crate::object::{Kind, ObjRef};
use crate::plan::{Clock, EventDraft, EventType, Op};

/// Most Events remembered for counting, and most objects remembered for the flood limit.
const REMEMBERED: usize = 1024;
/// Events that one object may cause in a row (client-go's spam filter).
const BURST: f64 = 25.0;
/// Events that one object may cause in the long run, per second (one in five minutes).
const REFILL: f64 = 1.0 / 300.0;
/// A repetition after this long is a new Event.
const SAME_FOR: Duration = Duration::from_secs(600);

/// An Event on its way, with the name of the controller that it comes from.
pub(crate) type Sent = (&'static str, EventDraft, Clock);

/// Writes Events until told to stop. A failure to write one is not worth more than a line in the log.
pub(crate) async fn write(
    client: Client,
    mut events: mpsc::Receiver<Sent>,
    stop: CancellationToken,
) {
    let mut correlator = Correlator::default();
    loop {
        let (source, draft, clock) = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        let Some(op) = correlator.decide(source, &draft, clock) else {
            continue;
        };
        if let Err(error) = execute::execute(&client, &op).await {
            tracing::debug!(%error, reason = draft.reason, "event not recorded");
        }
    }
}

/// Decides whether an Event is new, a repetition, or one too many.
#[derive(Default)]
struct Correlator {
    known: HashMap<String, Known>,
    budgets: HashMap<String, Budget>,
    sequence: u64,
}

struct Known {
    at: ObjRef,
    count: u32,
    last: Duration,
}

struct Budget {
    tokens: f64,
    at: Duration,
}

impl Correlator {
    fn decide(&mut self, source: &'static str, draft: &EventDraft, clock: Clock) -> Option<Op> {
        let about = &draft.regarding;
        let object = format!(
            "{source}/{}/{}/{}",
            about.kind.as_deref().unwrap_or_default(),
            about.uid.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default(),
        );
        if !self.spend(&object, clock.steady) {
            return None;
        }
        let identity = format!("{object}/{}/{}", draft.reason, draft.message);
        let time = Time(clock.wall);
        if let Some(known) = self.known.get_mut(&identity)
            && clock.steady.saturating_sub(known.last) < SAME_FOR
        {
            known.count += 1;
            known.last = clock.steady;
            return Some(Op::Patch {
                at: known.at.clone(),
                subresource: "",
                body: json!({"count": known.count, "lastTimestamp": time}),
            });
        }
        self.sequence += 1;
        let namespace = about.namespace.as_deref().filter(|ns| !ns.is_empty());
        let name = format!(
            "{}.{:x}{:x}",
            about.name.as_deref().unwrap_or_default(),
            clock.wall.as_microsecond(),
            self.sequence
        );
        let at = ObjRef::new(Kind::Event, namespace.unwrap_or("default"), &name);
        forget_oldest(&mut self.known, |known| known.last);
        self.known.insert(
            identity,
            Known {
                at: at.clone(),
                count: 1,
                last: clock.steady,
            },
        );
        let body = body(source, draft, &time);
        Some(Op::Create { at, body })
    }

    fn spend(&mut self, object: &str, now: Duration) -> bool {
        if !self.budgets.contains_key(object) {
            forget_oldest(&mut self.budgets, |budget| budget.at);
        }
        let budget = self.budgets.entry(object.to_owned()).or_insert(Budget {
            tokens: BURST,
            at: now,
        });
        let refill = now.saturating_sub(budget.at).as_secs_f64() * REFILL;
        budget.tokens = (budget.tokens + refill).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }
}

fn body(source: &str, draft: &EventDraft, time: &Time) -> Value {
    json!({
        "involvedObject": draft.regarding,
        "type": match draft.event_type {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        },
        "reason": draft.reason,
        "message": draft.message,
        "source": {"component": source},
        "reportingComponent": source,
        "reportingInstance": "",
        "count": 1,
        "firstTimestamp": time,
        "lastTimestamp": time,
    })
}

fn forget_oldest<V>(map: &mut HashMap<String, V>, age: impl Fn(&V) -> Duration) {
    if map.len() < REMEMBERED {
        return;
    }
    let oldest = map
        .iter()
        .min_by_key(|(_, v)| age(v))
        .map(|(k, _)| k.clone());
    if let Some(oldest) = oldest {
        map.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn draft(pod: &str, message: &str) -> EventDraft {
        EventDraft {
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("ns".into()),
                name: Some(pod.into()),
                uid: Some(format!("uid-{pod}")),
                ..Default::default()
            },
            event_type: EventType::Warning,
            reason: "FailedScheduling",
            message: message.into(),
        }
    }

    fn clock(seconds: u64) -> Clock {
        Clock {
            wall: Timestamp::UNIX_EPOCH,
            steady: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn repetitions_are_counted() {
        let mut correlator = Correlator::default();
        let first = correlator.decide("scheduler", &draft("a", "full"), clock(0));
        let Some(Op::Create { at, .. }) = first else {
            panic!("{first:?}")
        };
        let second = correlator.decide("scheduler", &draft("a", "full"), clock(1));
        let Some(Op::Patch { at: same, body, .. }) = second else {
            panic!("{second:?}")
        };
        assert_eq!(at, same);
        assert_eq!(body["count"], 2);
        let other = correlator.decide("scheduler", &draft("a", "tainted"), clock(2));
        assert!(matches!(other, Some(Op::Create { .. })));
        let later = correlator.decide("scheduler", &draft("a", "full"), clock(700));
        assert!(matches!(later, Some(Op::Create { .. })));
    }

    #[test]
    fn a_flood_of_one_object_is_cut_off_and_no_other() {
        let mut correlator = Correlator::default();
        let mut send = |pod: &str, n: u64| {
            (0..n)
                .filter(|i| {
                    let event = draft(pod, &i.to_string());
                    correlator.decide("s", &event, clock(0)).is_some()
                })
                .count()
        };
        assert_eq!(send("a", 100), 25);
        assert_eq!(send("b", 3), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for i in 0..1100 {
            correlator.decide("s", &draft(&i.to_string(), "m"), clock(i));
        }
        assert!(correlator.known.len() <= REMEMBERED && correlator.budgets.len() <= REMEMBERED);
    }
}
