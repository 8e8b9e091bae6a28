//! A small world for tests of plans: carries plans out on an image as an API server would.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{Cached, Kind, ObjRef, Object};
use crate::plan::{Clock, Controller, Op, Plan};
use crate::state::State;

#[derive(Default)]
pub(crate) struct World {
    pub(crate) state: State,
    documents: BTreeMap<ObjRef, Value>,
    revision: u64,
    /// Since the start of the world.
    pub(crate) now: Duration,
}

impl World {
    pub(crate) fn clock(&self) -> Clock {
        let seconds = 1_700_000_000 + self.now.as_secs();
        Clock {
            wall: Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap(),
            steady: self.now,
        }
    }

    /// Puts an object into the world, with uid, version, generation and creation time unless it brings them.
    pub(crate) fn put(&mut self, kind: Kind, mut document: Value) -> ObjRef {
        let name = document["metadata"]["name"].as_str().unwrap().to_owned();
        if kind.is_namespaced() && document["metadata"]["namespace"].is_null() {
            document["metadata"]["namespace"] = json!("ns");
        }
        let namespace = document["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default();
        let at = ObjRef::new(kind, namespace, &name);
        self.revision += 1;
        let meta = &mut document["metadata"];
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}-{}", self.revision, name));
        }
        if meta["generation"].is_null() {
            meta["generation"] = json!(1);
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!(self.clock().wall.to_string());
        }
        meta["resourceVersion"] = json!(self.revision.to_string());
        let object = Object::from_value(kind, document.clone()).unwrap();
        self.documents.insert(at.clone(), document);
        self.state.observed(object);
        at
    }

    pub(crate) fn remove(&mut self, at: &ObjRef) {
        self.documents.remove(at);
        if let Some(object) = self.state.object(at).cloned() {
            let now = self.clock().steady;
            self.state.vanished(&object, now);
        }
    }

    /// Merges a patch (RFC 7386).
    pub(crate) fn patch(&mut self, at: &ObjRef, patch: &Value) {
        let mut document = self.documents[at].clone();
        let spec = document["spec"].clone();
        merge(&mut document, patch);
        if document["spec"] != spec {
            let generation = document["metadata"]["generation"].as_i64().unwrap();
            document["metadata"]["generation"] = json!(generation + 1);
        }
        let finalizers = document["metadata"]["finalizers"]
            .as_array()
            .map_or(0, Vec::len);
        if finalizers == 0
            && document["metadata"]["deletionTimestamp"].is_string()
            && at.kind != Kind::Pod
        {
            self.remove(at);
        } else {
            self.put(at.kind, document);
        }
    }

    pub(crate) fn uid(&self, at: &ObjRef) -> String {
        self.state.object(at).unwrap().uid().to_owned()
    }

    pub(crate) fn plan(&self, controller: &mut dyn Controller, key: &ObjRef) -> Plan {
        controller.plan(key, &self.state, self.clock())
    }

    /// Plans and carries out once.
    pub(crate) fn step(&mut self, controller: &mut dyn Controller, key: &ObjRef) -> Plan {
        let plan = self.plan(controller, key);
        for step in &plan.steps {
            if !self.execute(&step.op) {
                break;
            }
        }
        plan
    }

    /// Lets one controller work on all objects of a kind until it has nothing more to do.
    pub(crate) fn settle(&mut self, controller: &mut dyn Controller, kind: Kind) {
        for _ in 0..100 {
            let keys: Vec<ObjRef> = self
                .documents
                .keys()
                .filter(|at| at.kind == kind)
                .cloned()
                .collect();
            let idle = keys
                .iter()
                .filter(|key| self.step(controller, key).steps.is_empty())
                .count();
            if idle == keys.len() {
                return;
            }
        }
        panic!("{} never comes to rest", controller.name());
    }

    /// Carries one request out; false if a guard or the server says no.
    fn execute(&mut self, op: &Op) -> bool {
        match op {
            Op::Create { at, .. } if self.documents.contains_key(at) => return false,
            Op::Create { at, body } => {
                let mut body = body.clone();
                body["metadata"]["name"] = json!(&*at.key.name);
                body["metadata"]["namespace"] = json!(&*at.key.namespace);
                self.put(at.kind, body);
            }
            Op::Patch { at, body, .. } => self.patch(at, body),
            Op::Delete { at, grace, .. } => {
                let document = &self.documents[at];
                let bound = document["spec"]["nodeName"].is_string() && *grace != Some(0);
                if at.kind == Kind::Pod && bound {
                    let time = self.clock().wall.to_string();
                    self.patch(at, &json!({"metadata": {"deletionTimestamp": time}}));
                } else {
                    self.remove(at);
                }
            }
            Op::Bind { pod, node, .. } => {
                let at = ObjRef {
                    kind: Kind::Pod,
                    key: pod.clone(),
                };
                self.patch(&at, &json!({"spec": {"nodeName": node}}));
            }
            Op::Finalize { namespace, .. } => {
                self.remove(&ObjRef::new(Kind::Namespace, "", namespace));
            }
            Op::VerifyAbsent { at, uid } => {
                let found = self.state.object(at);
                return found.is_none_or(|o| uid.as_ref().is_some_and(|uid| uid != o.uid()));
            }
            Op::VerifyEmpty { .. } | Op::DeleteAll { .. } => {}
        }
        true
    }

    pub(crate) fn count<K: Cached>(&self) -> usize {
        self.state.all::<K>().count()
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// Conditions of a Pod that runs.
pub(crate) fn running(ip: &str, ready: bool) -> Value {
    let word = if ready { "True" } else { "False" };
    json!({
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": word, "lastTransitionTime": "2023-11-14T00:00:00Z"}],
    })
}

/// A node that is ready.
pub(crate) fn node(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2023-11-14T00:00:00Z"}],
            "allocatable": {"pods": "110", "cpu": "2", "memory": "4Gi"},
        },
    })
}
