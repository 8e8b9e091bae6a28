//! Namespaces: what every one of them holds from the start, and the removal of everything in one that goes.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use serde_json::json;

use crate::config::ControllersConfig;
use crate::object::{Cached, Key, Kind, ObjRef, Object};
use crate::plan::{Clock, Controller, Op, Plan};
use crate::state::{Change, State};

/// The ConfigMap that carries the cluster CA to the Pods of a namespace (KEP-1205).
pub(crate) const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const DEFAULT_ACCOUNT: &str = "default";
/// The finalizer, in `spec`, that keeps a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// The namespace controller.
pub(crate) struct Namespaces {
    ca_pem: String,
}

impl Namespaces {
    pub(crate) fn new(config: &ControllersConfig) -> Self {
        Self {
            ca_pem: config.ca_pem.clone(),
        }
    }

    fn fill(&self, name: &str, state: &State) -> Plan {
        let mut plan = Plan::default();
        if state
            .get::<ServiceAccount>(&Key::new(name, DEFAULT_ACCOUNT))
            .is_none()
        {
            plan.push(Op::Create {
                at: ObjRef::new(Kind::ServiceAccount, name, DEFAULT_ACCOUNT),
                body: json!({}),
            });
        }
        if self.ca_pem.is_empty() {
            return plan;
        }
        let data = json!({"data": {CA_KEY: self.ca_pem}});
        let at = ObjRef::new(Kind::ConfigMap, name, ROOT_CA_CONFIG_MAP);
        match state.get::<ConfigMap>(&at.key) {
            None => plan.push(Op::Create { at, body: data }),
            Some(known) => {
                let published = known.data.as_ref().and_then(|data| data.get(CA_KEY));
                if published != Some(&self.ca_pem) {
                    plan.patch(at, "", data);
                }
            }
        }
        plan
    }
}

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        let Some(object) = change.object() else {
            return Vec::new();
        };
        if object.kind() == Kind::Namespace {
            return vec![object.reference()];
        }
        let at = object.reference();
        let namespace = ObjRef::new(Kind::Namespace, "", &at.key.namespace);
        let is_default = matches!(
            (at.kind, &*at.key.name),
            (Kind::ServiceAccount, DEFAULT_ACCOUNT) | (Kind::ConfigMap, ROOT_CA_CONFIG_MAP)
        );
        match state.get::<Namespace>(&namespace.key) {
            Some(known) if is_default || known.metadata.deletion_timestamp.is_some() => {
                vec![namespace]
            }
            _ => Vec::new(),
        }
    }

    fn plan(&mut self, key: &ObjRef, state: &State, _clock: Clock) -> Plan {
        match state.get::<Namespace>(&key.key) {
            None => Plan::default(),
            Some(namespace) if namespace.metadata.deletion_timestamp.is_none() => {
                self.fill(&key.key.name, state)
            }
            Some(namespace) => empty(namespace, state),
        }
    }
}

/// Whether a namespace is on its way out, so that nothing can be created in it.
pub(crate) fn is_terminating(state: &State, namespace: &str) -> bool {
    state
        .get::<Namespace>(&Key::new("", namespace))
        .is_some_and(|ns| ns.metadata.deletion_timestamp.is_some())
}

/// Deletes the content of a namespace, Pods first so that nothing they rely on goes before them (KEP-5080), and
/// then, once the server says that nothing is left, removes the finalizer.
fn empty(namespace: &Namespace, state: &State) -> Plan {
    let mut plan = Plan::default();
    let name = namespace.metadata.name.clone().unwrap_or_default();
    let holds = |object: &&Object| object.meta().namespace.as_deref() == Some(&*name);
    let mut left: Vec<&Object> = state.objects().filter(holds).collect();
    if state.within::<Pod>(&name).next().is_some() {
        left.retain(|object| Pod::from_object(object).is_some());
    }
    if !left.is_empty() {
        plan.parallel_from = Some(0);
        for object in left {
            if object.meta().deletion_timestamp.is_none() {
                plan.push(Op::delete(object.kind(), object.meta()));
            }
        }
        return plan;
    }
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone());
    let mut finalizers = finalizers.unwrap_or_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        return plan;
    }
    finalizers.retain(|f| f != FINALIZER);
    plan.push(Op::DeleteAll {
        kind: Kind::Event,
        namespace: name.clone(),
    });
    for kind in Kind::WATCHED.iter().filter(|kind| kind.is_namespaced()) {
        plan.push(Op::VerifyEmpty {
            kind: *kind,
            namespace: name.clone(),
        });
    }
    let mut body = json!(namespace);
    body["spec"]["finalizers"] = json!(finalizers);
    plan.push(Op::Finalize {
        namespace: name,
        body,
    });
    plan
}

#[cfg(test)]
mod tests;
