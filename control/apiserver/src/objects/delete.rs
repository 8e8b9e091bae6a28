//! Deletion: at once, after finalizers, or after a Pod's grace period.

mod options;

use jiff::Timestamp;
use seaway_store::{Store, Txn};
use serde_json::Value;

use super::{ObjectRef, dump, load, put, transact};
use crate::allocate;
use crate::answer::Result;
use crate::kinds::Kind;
use crate::meta;
use crate::status::{self, Status};

use options::Propagation;

pub(crate) use options::DeleteOptions;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// `spec.terminationGracePeriodSeconds` where a Pod does not say.
const DEFAULT_GRACE: i64 = 30;
/// Namespaces that a cluster cannot be without (admission `NamespaceLifecycle`).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// A deletion's answer.
pub(crate) struct Deleted {
    /// The object, as it last was or as it waits now.
    pub(crate) object: Value,
    /// It is gone, not only marked.
    pub(crate) gone: bool,
}

impl Deleted {
    /// Body of the answer: the object while it waits, and for kinds whose storage returns it; else a Status with the uid
    /// on which kubectl waits.
    pub(crate) fn body(self, kind: &Kind, name: &str) -> Value {
        let returns_object = kind.group.is_empty()
            && matches!(
                kind.plural,
                "pods" | "services" | "namespaces" | "serviceaccounts"
            );
        if !self.gone || returns_object {
            return self.object;
        }
        status::deleted(kind.group, kind.plural, name, meta::uid(&self.object))
    }
}

pub(crate) async fn delete(
    store: &Store,
    target: ObjectRef,
    options: DeleteOptions,
) -> Result<Deleted> {
    let dry_run = options.dry_run;
    let kind = target.kind;
    let object = transact(store, dry_run, move |txn| delete_in(txn, &target, &options)).await?;
    // Marked objects carry the mark; what carries none, or has nothing to wait for, is gone.
    let gone = !meta::is_terminating(&object) || is_done(kind, &object);
    Ok(Deleted { object, gone })
}

fn delete_in(txn: &mut Txn<'_>, target: &ObjectRef, options: &DeleteOptions) -> Result<Value> {
    let kind = target.kind;
    let record = target.record(txn)?;
    let object = load(kind, &record.value)?;
    check_preconditions(target, &object, options)?;
    if is_namespace(kind) && IMMORTAL.contains(&target.name.as_str()) {
        return Err(
            Status::forbidden(kind, &target.name, "this namespace may not be deleted").into(),
        );
    }
    let mut marked = object.clone();
    let grace = grace(kind, &object, options);
    match options.propagation {
        Some(Propagation::Foreground) => {
            meta::remove_finalizer(&mut marked, ORPHAN);
            meta::add_finalizer(&mut marked, FOREGROUND);
        }
        Some(Propagation::Orphan) => {
            meta::remove_finalizer(&mut marked, FOREGROUND);
            meta::add_finalizer(&mut marked, ORPHAN);
        }
        Some(Propagation::Background) => {
            meta::remove_finalizer(&mut marked, FOREGROUND);
            meta::remove_finalizer(&mut marked, ORPHAN);
        }
        None => {}
    }
    if grace == 0 && !has_finalizers(kind, &marked) {
        if meta::is_terminating(&marked) {
            meta::metadata_mut(&mut marked).insert("deletionGracePeriodSeconds".into(), 0.into());
        }
        return remove(txn, target, marked);
    }
    meta::mark_deleted(&mut marked, Timestamp::now(), grace);
    if is_namespace(kind) {
        marked["status"]["phase"] = "Terminating".into();
    }
    if meta::unchanged(&marked, &object) {
        return Ok(object);
    }
    put(txn, target, marked)
}

fn check_preconditions(target: &ObjectRef, object: &Value, options: &DeleteOptions) -> Result<()> {
    let (kind, name) = (target.kind, &target.name);
    let (uid, version) = (meta::uid(object), meta::resource_version(object));
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        return Err(Status::uid_precondition(kind, name, wanted, uid).into());
    }
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        return Err(Status::version_precondition(kind, name, wanted, version).into());
    }
    Ok(())
}

/// Seconds to wait before the object may go. Only a Pod that runs somewhere has any: its agent ends it.
fn grace(kind: &Kind, object: &Value, options: &DeleteOptions) -> i64 {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let runs = is_pod(kind)
        && !text("/spec/nodeName").is_empty()
        && !matches!(text("/status/phase"), "Succeeded" | "Failed");
    if !runs {
        return 0;
    }
    let own = object
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    options.grace_seconds.or(own).unwrap_or(DEFAULT_GRACE)
}

fn is_pod(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

fn is_namespace(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "namespaces"
}

fn has_finalizers(kind: &Kind, object: &Value) -> bool {
    let of_spec = || {
        object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    };
    meta::finalizers(object).next().is_some() || (is_namespace(kind) && of_spec())
}

/// Marked for deletion, and nothing left to wait for.
pub(super) fn is_done(kind: &Kind, object: &Value) -> bool {
    let grace = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    meta::is_terminating(object) && grace == 0 && !has_finalizers(kind, object)
}

/// Takes the object out of the store, with what was allocated for it; watchers get it with the deletion's revision.
pub(super) fn remove(txn: &mut Txn<'_>, target: &ObjectRef, mut object: Value) -> Result<Value> {
    if allocate::concerns(target.kind) {
        allocate::release(txn, &object);
    }
    let revision = txn.next_revision();
    let last = dump(target.kind, &object, revision)?;
    txn.delete(&target.bucket(), &target.key(), last);
    meta::set_resource_version(&mut object, revision);
    Ok(object)
}
