//! What a controller wants done, as a value: the seam between deciding and doing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::object::{Key, Kind, ObjRef, Object};
use crate::state::{Change, State};

/// The time at which a plan is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// For fields of objects.
    pub wall: Timestamp,
    /// Since the start of the process, never going back: for judging how long something has lasted.
    pub steady: Duration,
}

/// What happens to dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// One request to the API server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    Create {
        at: ObjRef,
        body: Value,
    },
    /// JSON merge patch (RFC 7386); `subresource` empty means the object itself.
    Patch {
        at: ObjRef,
        subresource: &'static str,
        body: Value,
    },
    Delete {
        at: ObjRef,
        /// Precondition, so that a successor of the same name survives.
        uid: String,
        propagation: Propagation,
        /// `Some(0)` removes a Pod without waiting for its agent.
        grace: Option<u32>,
    },
    /// Assigns a Pod to a node.
    Bind {
        pod: Key,
        uid: String,
        node: String,
    },
    /// Replaces the `finalize` subresource of a Namespace.
    Finalize {
        namespace: String,
        body: Value,
    },
    /// Guard: stops the plan unless the object is really absent (or is another one of the same name).
    VerifyAbsent {
        at: ObjRef,
        uid: Option<String>,
    },
    /// Guard: stops the plan unless the server has no object of this kind in the namespace.
    VerifyEmpty {
        kind: Kind,
        namespace: String,
    },
    /// Deletes every object of a kind that the cache does not follow.
    DeleteAll {
        kind: Kind,
        namespace: String,
    },
}

impl Op {
    /// Deletes an object after its own grace period; what it owns goes later, in the background.
    pub(crate) fn delete(kind: Kind, meta: &ObjectMeta) -> Self {
        Self::Delete {
            at: ObjRef {
                kind,
                key: Key::of(meta),
            },
            uid: meta.uid.clone().unwrap_or_default(),
            propagation: Propagation::Background,
            grace: None,
        }
    }
}

/// One request, and the Event that tells of its success.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub op: Op,
    pub event: Option<EventDraft>,
}

/// Everything one plan asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// Done in order; the first failure ends the plan, which is then made anew.
    pub steps: Vec<Step>,
    /// Steps at the end of `steps` from this index on do not depend on each other and may run together.
    pub parallel_from: Option<usize>,
    /// Events that tell of no write.
    pub events: Vec<EventDraft>,
    /// Plan again after this time even if nothing changes.
    pub again_in: Option<Duration>,
}

impl Plan {
    pub(crate) fn push(&mut self, op: Op) {
        self.steps.push(Step { op, event: None });
    }

    pub(crate) fn push_with_event(&mut self, op: Op, event: EventDraft) {
        let event = Some(event);
        self.steps.push(Step { op, event });
    }

    pub(crate) fn patch(&mut self, object: ObjRef, subresource: &'static str, body: Value) {
        self.push(Op::Patch {
            at: object,
            subresource,
            body,
        });
    }

    /// Asks to be planned again in `delay`, or earlier if that was asked before.
    pub(crate) fn retry_in(&mut self, delay: Duration) {
        self.again_in = Some(self.again_in.map_or(delay, |known| known.min(delay)));
    }
}

/// Severity of an Event, as the API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

/// An Event to be recorded about an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EventDraft {
    pub regarding: ObjectReference,
    pub event_type: EventType,
    pub reason: &'static str,
    pub message: String,
}

impl EventDraft {
    pub(crate) fn normal(about: &Object, reason: &'static str, message: String) -> Self {
        Self::new(about, EventType::Normal, reason, message)
    }

    pub(crate) fn warning(about: &Object, reason: &'static str, message: String) -> Self {
        Self::new(about, EventType::Warning, reason, message)
    }

    fn new(about: &Object, event_type: EventType, reason: &'static str, message: String) -> Self {
        Self {
            regarding: about.object_reference(),
            event_type,
            reason,
            message,
        }
    }
}

/// A controller: decides, and leaves the doing to the driver in [`crate::run`].
pub(crate) trait Controller: Send + 'static {
    /// Name in logs and as the source of Events.
    fn name(&self) -> &'static str;

    /// How many keys may be worked on at once. One, where plans for different keys must see each other's writes.
    fn workers(&self) -> usize {
        4
    }

    /// The keys whose plan a change may alter.
    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef>;

    /// What to do about one key, from the image of the cluster alone. The controller's own memory holds only
    /// what cannot be read from the cluster, such as when it first saw something.
    fn plan(&mut self, key: &ObjRef, state: &State, clock: Clock) -> Plan;

    /// Told when a request of a plan failed; the key is planned again after a pause anyway. May answer with an
    /// Event about it.
    fn failed(
        &mut self,
        _key: &ObjRef,
        _op: &Op,
        _error: &str,
        _state: &State,
    ) -> Option<EventDraft> {
        None
    }
}
