//! New objects.

use std::sync::Arc;

use jiff::Timestamp;
use seaway_store::{Store, Txn};
use serde_json::Value;

use super::{ObjectRef, allocation_failed, invalid, put, transact};
use crate::allocate::{self, Ranges};
use crate::answer::Result;
use crate::kinds::{self, Kind};
use crate::meta;
use crate::status::Status;

/// Attempts at a generated name, as upstream has it.
const NAME_ATTEMPTS: usize = 8;

/// Makes a decoded body an object of the store. `namespace` is the URL's, empty for cluster-wide kinds.
pub(crate) async fn create(
    store: &Store,
    ranges: &Arc<Ranges>,
    kind: &'static Kind,
    namespace: String,
    object: Value,
    dry_run: bool,
) -> Result<Value> {
    let ranges = ranges.clone();
    transact(store, dry_run, move |txn| {
        let mut created = create_in(txn, &ranges, kind, namespace, object)?;
        if dry_run {
            meta::metadata_mut(&mut created).remove("resourceVersion");
        }
        Ok(created)
    })
    .await
}

fn create_in(
    txn: &mut Txn<'_>,
    ranges: &Ranges,
    kind: &'static Kind,
    namespace: String,
    mut object: Value,
) -> Result<Value> {
    if !matches!(meta::resource_version(&object), "" | "0") {
        return Err(Status::version_on_create().into());
    }
    let target = name(txn, kind, namespace, &object)?;
    if kind.namespaced {
        check_namespace(txn, &target)?;
    }
    // Before the defaults: some are made from the name, which may be a generated one.
    let namespace = kind.namespaced.then_some(target.namespace.as_str());
    let uid = uuid::Uuid::new_v4().to_string();
    meta::stamp_new(&mut object, namespace, &target.name, &uid, Timestamp::now());
    kind.default(&mut object);
    kind.prepare_create(&mut object);
    if allocate::concerns(kind) {
        allocate::assign(txn, ranges, &mut object, None)
            .map_err(|error| allocation_failed(kind, &target.name, error))?;
    }
    invalid(kind, &target.name, &kind.validate(&object, None))?;
    if txn.get(&target.bucket(), &target.key()).is_some() {
        return Err(match meta::generate_name(&object) {
            "" => Status::already_exists(kind, &target.name).into(),
            _ => Status::generate_name_conflict(kind, &target.name).into(),
        });
    }
    put(txn, &target, object)
}

/// The name asked for, or one generated that is free.
fn name(
    txn: &Txn<'_>,
    kind: &'static Kind,
    namespace: String,
    object: &Value,
) -> Result<ObjectRef> {
    let mut target = ObjectRef {
        kind,
        namespace,
        name: meta::name(object).to_owned(),
    };
    let base = meta::generate_name(object);
    if target.name.is_empty() && !base.is_empty() {
        for _ in 0..NAME_ATTEMPTS {
            target.name = meta::generated_name(base, rand::random());
            if txn.get(&target.bucket(), &target.key()).is_none() {
                break;
            }
        }
    }
    Ok(target)
}

/// Admission `NamespaceLifecycle`: the namespace is there and stays.
fn check_namespace(txn: &Txn<'_>, target: &ObjectRef) -> Result<()> {
    let absent = || Status::resource_not_found("namespaces", &target.namespace);
    let kind = kinds::find("", "v1", "namespaces").ok_or_else(absent)?;
    let namespace = ObjectRef {
        kind,
        namespace: String::new(),
        name: target.namespace.clone(),
    };
    let record = txn
        .get(&namespace.bucket(), &namespace.key())
        .ok_or_else(absent)?;
    let namespace: Value = serde_json::from_slice(&record.value)?;
    if meta::is_terminating(&namespace) {
        return Err(
            Status::namespace_terminating(target.kind, &target.name, &target.namespace).into(),
        );
    }
    Ok(())
}
