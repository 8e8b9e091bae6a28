//! API objects to model inputs. Pure, and total: what cannot be used becomes a diagnostic.
//!
//! Which objects count, and how their fields read, follows kube-proxy (`pkg/proxy/serviceport.go`,
//! `endpointslicecache.go`, `util.ShouldSkipService` of Kubernetes 1.33).

mod names;
mod node;
mod service;
mod slice;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use seaway_model::{Diagnostic, InputEvent, ObjectKey, Protocol};

use crate::intern::Interner;
use crate::wire;

pub(crate) use node::direct_answers;

/// An API object of a kind that we read.
#[derive(Debug, Clone)]
pub enum Object {
    Service(wire::Service),
    Slice(wire::EndpointSlice),
    Node(wire::Node),
}

/// Identity of an API object of a kind that we read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectRef {
    Service(ObjectKey),
    Slice(ObjectKey),
    Node(Arc<str>),
}

impl ObjectRef {
    /// The key of the object; without a namespace for a node.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(key) | Self::Slice(key) => key.clone(),
            Self::Node(name) => ObjectKey::new("", name),
        }
    }

    /// The event that takes the object away.
    pub fn deleted(&self) -> InputEvent {
        match self {
            Self::Service(key) => InputEvent::Service(key.clone(), None),
            Self::Slice(key) => InputEvent::Slice(key.clone(), None),
            Self::Node(name) => InputEvent::Node(name.clone(), None),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "Service {key}"),
            Self::Slice(key) => write!(f, "EndpointSlice {key}"),
            Self::Node(name) => write!(f, "Node {name}"),
        }
    }
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    pub object: ObjectRef,
    /// `None` inside when the object is none of ours (headless, other proxy, another address type).
    pub event: InputEvent,
    pub diagnostics: Vec<Diagnostic>,
}

impl Conversion {
    /// Whether the model sees the object at all.
    pub fn is_present(&self) -> bool {
        !matches!(
            self.event,
            InputEvent::Service(_, None) | InputEvent::Slice(_, None) | InputEvent::Node(_, None)
        )
    }
}

impl Object {
    /// Identity of the object; the namespace defaults to `default` as kubectl's does.
    pub fn reference(&self, names: &mut Interner) -> ObjectRef {
        match self {
            Self::Service(service) => ObjectRef::Service(key_of(&service.metadata)),
            Self::Slice(slice) => ObjectRef::Slice(key_of(&slice.metadata)),
            Self::Node(node) => {
                ObjectRef::Node(names.get(node.metadata.name.as_deref().unwrap_or_default()))
            }
        }
    }
}

/// Converts one object. Never fails: a broken part is left out and reported, the rest is used.
pub fn convert(object: &Object, names: &mut Interner) -> Conversion {
    let reference = object.reference(names);
    let mut report = Report::new(&reference);
    let event = match (&reference, object) {
        (nameless, _) if !names::check(nameless, &mut report) => nameless.deleted(),
        (ObjectRef::Service(key), Object::Service(service)) => InputEvent::Service(
            key.clone(),
            service::convert(key, service, names, &mut report),
        ),
        (ObjectRef::Slice(key), Object::Slice(slice)) => {
            InputEvent::Slice(key.clone(), slice::convert(key, slice, names, &mut report))
        }
        (ObjectRef::Node(name), Object::Node(node)) => InputEvent::Node(
            name.clone(),
            Some(node::convert(name, node, names, &mut report)),
        ),
        // `reference` names the kind of the very object, so kinds cannot differ.
        (other, _) => other.deleted(),
    };
    Conversion {
        object: reference,
        event,
        diagnostics: report.diagnostics,
    }
}

/// Collects diagnostics of one object.
struct Report {
    object: ObjectKey,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    fn new(object: &ObjectRef) -> Self {
        Self {
            object: object.key(),
            diagnostics: Vec::new(),
        }
    }

    fn add(&mut self, field: impl Into<String>, consequence: impl Into<String>) {
        self.diagnostics.push(Diagnostic {
            object: self.object.clone(),
            field: field.into(),
            consequence: consequence.into(),
        });
    }
}

fn key_of(metadata: &ObjectMeta) -> ObjectKey {
    let namespace = metadata
        .namespace
        .as_deref()
        .filter(|name| !name.is_empty());
    let name = metadata.name.as_deref().unwrap_or_default();
    ObjectKey::new(namespace.unwrap_or("default"), name)
}

fn has_label(metadata: &ObjectMeta, label: &str) -> bool {
    metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(label))
}

/// A port number that can be on a wire.
fn port_number(value: i64) -> Option<u16> {
    u16::try_from(value).ok().filter(|port| *port != 0)
}

/// `None` reads as TCP, as the API's default does.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}
