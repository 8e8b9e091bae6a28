//! The kinds that the controllers know, and one object of any of them.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, ObjectReference, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::ApiResource;
use serde_json::Value;

macro_rules! kinds {
    ($($kind:ident, $group:literal, $plural:literal, $namespaced:literal;)*) => {
        /// A kind that the controllers read or write.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Kind { $($kind,)* Event }

        /// One object as the cache holds it.
        #[derive(Debug, Clone)]
        pub(crate) enum Object { $($kind(Arc<$kind>),)* }

        impl Kind {
            /// Every kind that the cache follows. Events are only written.
            pub(crate) const WATCHED: &'static [Self] = &[$(Self::$kind,)*];

            fn table(self) -> (&'static str, &'static str, &'static str, bool) {
                match self {
                    $(Self::$kind => (stringify!($kind), $group, $plural, $namespaced),)*
                    Self::Event => ("Event", "", "events", true),
                }
            }
        }

        impl Object {
            pub(crate) fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            pub(crate) fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata,)* }
            }

            /// Reads a JSON object of a watched kind.
            pub(crate) fn from_value(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
                match kind {
                    $(Kind::$kind => serde_json::from_value::<$kind>(value).map(|object| object.into()),)*
                    Kind::Event => Err(serde::de::Error::custom("Events are not cached")),
                }
            }
        }

        $(impl Cached for $kind {
            const KIND: Kind = Kind::$kind;

            fn from_object(object: &Object) -> Option<&Arc<Self>> {
                match object {
                    Object::$kind(object) => Some(object),
                    _ => None,
                }
            }
        }

        impl From<$kind> for Object {
            fn from(mut object: $kind) -> Self {
                object.slim();
                Self::$kind(Arc::new(object))
            }
        })*
    };
}

kinds! {
    Namespace, "", "namespaces", false;
    Node, "", "nodes", false;
    Pod, "", "pods", true;
    Service, "", "services", true;
    ConfigMap, "", "configmaps", true;
    Secret, "", "secrets", true;
    ServiceAccount, "", "serviceaccounts", true;
    EndpointSlice, "discovery.k8s.io", "endpointslices", true;
    Lease, "coordination.k8s.io", "leases", true;
    Deployment, "apps", "deployments", true;
    ReplicaSet, "apps", "replicasets", true;
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        self.table().0
    }

    pub(crate) fn api_version(self) -> &'static str {
        match self.table().1 {
            "" => "v1",
            "apps" => "apps/v1",
            "discovery.k8s.io" => "discovery.k8s.io/v1",
            _ => "coordination.k8s.io/v1",
        }
    }

    pub(crate) fn is_namespaced(self) -> bool {
        self.table().3
    }

    /// The kind that an owner reference names; `None` for one that we do not follow.
    pub(crate) fn of_owner(owner: &OwnerReference) -> Option<Self> {
        let group = owner.api_version.split_once('/').map_or("", |(g, _)| g);
        Self::WATCHED
            .iter()
            .copied()
            .find(|kind| kind.as_str() == owner.kind && kind.table().1 == group)
    }

    pub(crate) fn api_resource(self) -> ApiResource {
        let (kind, group, plural, _) = self.table();
        ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: self.api_version().to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }
}

/// A typed kind that the cache holds.
pub(crate) trait Cached: Sized + Send + Sync + 'static {
    const KIND: Kind;

    /// The typed object inside, if it is of this kind.
    fn from_object(object: &Object) -> Option<&Arc<Self>>;
}

/// Drops what no controller reads before an object enters the cache.
trait Slim {
    fn slim(&mut self);
}

macro_rules! slim_metadata {
    ($($kind:ident),*) => { $(impl Slim for $kind {
        fn slim(&mut self) { self.metadata.managed_fields = None; }
    })* };
}
slim_metadata!(
    Namespace,
    Node,
    Pod,
    Service,
    ServiceAccount,
    EndpointSlice,
    Lease,
    Deployment,
    ReplicaSet
);

impl Slim for Secret {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.data = None;
        self.string_data = None;
    }
}

impl Slim for ConfigMap {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        if self.metadata.name.as_deref() != Some(crate::namespace::ROOT_CA_CONFIG_MAP) {
            self.data = None;
            self.binary_data = None;
        }
    }
}

/// `namespace/name`; the namespace is empty for cluster-scoped objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

/// Kind and key: names one object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjRef {
    pub kind: Kind,
    pub key: Key,
}

impl ObjRef {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            key: Key::new(namespace, name),
        }
    }

    /// What an owner reference in `namespace` points at.
    pub(crate) fn of_owner(owner: &OwnerReference, namespace: &str) -> Option<Self> {
        let kind = Kind::of_owner(owner)?;
        let namespace = if kind.is_namespaced() { namespace } else { "" };
        Some(Self::new(kind, namespace, &owner.name))
    }
}

impl fmt::Display for ObjRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.namespace.is_empty() {
            write!(f, "{} {}", self.kind.as_str(), self.key.name)
        } else {
            let Key { namespace, name } = &self.key;
            write!(f, "{} {namespace}/{name}", self.kind.as_str())
        }
    }
}

impl Object {
    pub(crate) fn reference(&self) -> ObjRef {
        ObjRef {
            kind: self.kind(),
            key: Key::of(self.meta()),
        }
    }

    pub(crate) fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// The resource version as a number; servers promise decimal integers (KEP-5504).
    pub(crate) fn revision(&self) -> u64 {
        self.meta()
            .resource_version
            .as_deref()
            .and_then(|version| version.parse().ok())
            .unwrap_or(0)
    }

    /// The form in which Events name their object.
    pub(crate) fn object_reference(&self) -> ObjectReference {
        let meta = self.meta();
        ObjectReference {
            api_version: Some(self.kind().api_version().to_owned()),
            kind: Some(self.kind().as_str().to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        }
    }
}
