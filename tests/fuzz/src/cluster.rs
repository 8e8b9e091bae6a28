//! API objects as they come and go, followed as the daemon follows them, and what must hold of what they become.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use seaway_cluster::convert::{Object, ObjectRef};
use seaway_cluster::{Conversion, Interner, convert};
use seaway_model::{
    Desired, Diagnostic, FrontendKind, InputEvent, Inputs, Kind, NodeSettings, ObjectKey,
    derive_all,
};
use seaway_proxy::reconcile::Deriver;

mod derived;

/// The node on which everything is derived.
const NODE: &str = "n1";

/// Addresses of [`NODE`].
pub fn node_addresses() -> Vec<IpAddr> {
    let texts = ["192.168.100.1", "fd00:192::1"];
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn settings() -> NodeSettings {
    let ranges = ["203.0.113.0/24", "2001:db8:1::/64"];
    NodeSettings {
        external_ip_cidrs: ranges.iter().filter_map(|text| text.parse().ok()).collect(),
        ..NodeSettings::new(NODE)
    }
}

/// The objects that are there, and what following them has led to.
#[derive(Debug)]
pub struct World {
    objects: BTreeMap<ObjectRef, Object>,
    names: Interner,
    deriver: Deriver,
}

impl Default for World {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            names: Interner::default(),
            deriver: Deriver::new(settings()),
        }
    }
}

impl World {
    /// An object came or was changed.
    pub fn set(&mut self, object: Object) {
        let done = convert(&object, &mut self.names);
        check_conversion(&done);
        self.objects.insert(done.object.clone(), object);
        self.tell(&done.object, done.event, done.diagnostics);
    }

    /// An object is gone: the one with this number, if there are so many.
    pub fn delete(&mut self, index: usize) {
        let Some(object) = self.objects.keys().nth(index).cloned() else {
            return;
        };
        self.objects.remove(&object);
        self.tell(&object, object.deleted(), Vec::new());
    }

    /// As a source does.
    fn tell(&mut self, object: &ObjectRef, event: InputEvent, diagnostics: Vec<Diagnostic>) {
        self.deriver.absorb(event);
        let (kind, key) = match object {
            ObjectRef::Service(key) => (Kind::Service, key),
            ObjectRef::Slice(key) => (Kind::Slice, key),
            ObjectRef::Node(_) => return,
        };
        self.deriver
            .absorb(InputEvent::Findings(kind, key.clone(), diagnostics));
    }

    /// Works off what has come. Returns the Services that it touched.
    pub fn derive(&mut self) -> BTreeSet<ObjectKey> {
        self.deriver.derive().0
    }

    /// What was derived so far.
    pub fn desired(&self) -> &Desired {
        self.deriver.desired()
    }

    /// Whether a Service answers at its cluster IP.
    pub fn serves(&self, object: &ObjectRef) -> bool {
        let ObjectRef::Service(key) = object else {
            return false;
        };
        let rules = self.desired().services.get(key);
        let mut frontends = rules
            .iter()
            .flat_map(|rules| &rules.ports)
            .flat_map(|rule| &rule.frontends);
        frontends.any(|frontend| frontend.kind == FrontendKind::ClusterIp)
    }

    /// Everything that must hold once all is derived.
    ///
    /// # Panics
    ///
    /// When something does not.
    pub fn check(&self) {
        let mut fresh = Self::default();
        for object in self.objects.values() {
            fresh.set(object.clone());
        }
        fresh.derive();
        assert_eq!(fresh.desired(), self.desired());
        let (desired, diagnostics) = derive_all(self.inputs(), &settings());
        assert_eq!(&desired, self.desired());
        assert_eq!(
            derive_all(fresh.inputs(), &settings()),
            (desired, diagnostics.clone())
        );

        for diagnostic in &diagnostics {
            self.check_diagnostic(diagnostic);
        }
        derived::check(self.inputs(), self.desired(), &diagnostics, &settings());
    }

    fn inputs(&self) -> &Inputs {
        self.deriver.inputs()
    }

    /// It names an object that is there.
    fn check_diagnostic(&self, diagnostic: &Diagnostic) {
        let key = &diagnostic.object;
        let mut references = [
            ObjectRef::Service(key.clone()),
            ObjectRef::Slice(key.clone()),
        ]
        .into_iter();
        assert!(
            references.any(|object| self.objects.contains_key(&object)),
            "{diagnostic}"
        );
        assert!(
            !diagnostic.field.is_empty() && !diagnostic.consequence.is_empty(),
            "{diagnostic:?}"
        );
    }
}

/// What is said of an object is said of that one.
fn check_conversion(done: &Conversion) {
    let key = match (&done.object, &done.event) {
        (ObjectRef::Service(key), InputEvent::Service(of, _)) if key == of => key.clone(),
        (ObjectRef::Slice(key), InputEvent::Slice(of, _)) if key == of => key.clone(),
        (ObjectRef::Node(name), InputEvent::Node(of, _)) if name == of => {
            ObjectKey::new("", name.clone())
        }
        other => panic!("{other:?}"),
    };
    for diagnostic in &done.diagnostics {
        assert_eq!(diagnostic.object, key);
    }
}

/// An address that can stand in a rule.
fn is_usable(ip: IpAddr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

/// Sorted, each once.
fn is_set(mut addresses: impl Iterator<Item = SocketAddr>) -> bool {
    let mut last = None;
    addresses.all(|addr| last.replace(addr).is_none_or(|last| last < addr))
}
