//! Changes to objects: PUT and every kind of PATCH.

use std::sync::Arc;

use seaway_store::{Store, Txn};
use serde_json::Value;

use super::delete::{is_done, remove};
use super::{ObjectRef, allocation_failed, invalid, load, put, transact};
use crate::allocate::{self, Ranges};
use crate::answer::Result;
use crate::kinds;
use crate::meta;
use crate::status::Status;

/// Which part of the object a path may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateMode {
    /// Everything but status.
    Main,
    /// `/status`
    Status,
    /// `/finalize` of a namespace: `spec.finalizers` only.
    Finalize,
}

/// From the stored object to the wished one. Runs inside the commit, so it never sees a stale object and a patch never
/// needs a second try.
pub(crate) type Change = Box<dyn FnOnce(&Value) -> Result<Value> + Send>;

pub(crate) async fn update(
    store: &Store,
    ranges: &Arc<Ranges>,
    target: ObjectRef,
    mode: UpdateMode,
    change: Change,
    dry_run: bool,
) -> Result<Value> {
    let ranges = ranges.clone();
    transact(store, dry_run, move |txn| {
        let record = target.record(txn)?;
        let old = load(target.kind, &record.value)?;
        let updated = update_in(txn, &ranges, &target, mode, &old, change(&old)?)?;
        if !dry_run || meta::unchanged(&updated, &old) {
            return Ok(updated);
        }
        let mut updated = updated;
        meta::set_resource_version(&mut updated, record.revision);
        Ok(updated)
    })
    .await
}

fn update_in(
    txn: &mut Txn<'_>,
    ranges: &Ranges,
    target: &ObjectRef,
    mode: UpdateMode,
    old: &Value,
    mut new: Value,
) -> Result<Value> {
    let kind = target.kind;
    check_identity(target, &new, old)?;
    kind.default(&mut new);
    match mode {
        UpdateMode::Main => kind.prepare_update(&mut new, old),
        UpdateMode::Status => kind.prepare_status_update(&mut new, old),
        UpdateMode::Finalize => new = kinds::finalize_namespace(old, &new),
    }
    if mode == UpdateMode::Main && allocate::concerns(kind) {
        allocate::assign(txn, ranges, &mut new, Some(old))
            .map_err(|error| allocation_failed(kind, &target.name, error))?;
    }
    invalid(kind, &target.name, &kind.validate(&new, Some(old)))?;
    if meta::unchanged(&new, old) {
        return Ok(old.clone());
    }
    if is_done(kind, &new) {
        return remove(txn, target, new);
    }
    put(txn, target, new)
}

/// The body is about this very object, in the version that the client read.
fn check_identity(target: &ObjectRef, new: &Value, old: &Value) -> Result<()> {
    let kind = target.kind;
    if !new.is_object() {
        return Err(Status::bad_request("the object is not a JSON object").into());
    }
    if meta::name(new) != target.name {
        return Err(Status::name_mismatch(meta::name(new), &target.name).into());
    }
    if !matches!(meta::namespace(new), "") && meta::namespace(new) != target.namespace {
        return Err(Status::namespace_mismatch().into());
    }
    let (wanted, found) = (meta::uid(new), meta::uid(old));
    if !wanted.is_empty() && wanted != found {
        return Err(Status::uid_precondition(kind, &target.name, wanted, found).into());
    }
    let version = meta::resource_version(new);
    if !matches!(version, "" | "0") && version != meta::resource_version(old) {
        return Err(Status::modified(kind, &target.name).into());
    }
    Ok(())
}
