//! Objects in the store: where they are kept, and the pipelines that every write goes through, inside the commit.

mod binding;
mod create;
mod delete;
mod update;

use std::sync::Arc;

use bytes::Bytes;
use seaway_store::{Record, Store, StoreError, Txn};
use serde_json::Value;

pub(crate) use binding::bind;
pub(crate) use create::create;
pub(crate) use delete::{DeleteOptions, delete};
pub(crate) use update::{Change, UpdateMode, update};

use crate::allocate::AllocateError;
use crate::answer::{Failure, Result};
use crate::decode::MAX_OBJECT;
use crate::kinds::{FieldError, Kind};
use crate::meta;
use crate::status::Status;

/// Names of one object: kind, namespace (empty for cluster-wide kinds), name.
#[derive(Debug, Clone)]
pub(crate) struct ObjectRef {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectRef {
    pub(crate) fn key(&self) -> String {
        if self.kind.namespaced {
            format!("{}/{}", self.namespace, self.name)
        } else {
            self.name.clone()
        }
    }

    pub(crate) fn bucket(&self) -> String {
        bucket(self.kind)
    }

    /// The stored version, or the 404 that says so.
    fn record(&self, txn: &Txn<'_>) -> Result<Arc<Record>> {
        txn.get(&self.bucket(), &self.key())
            .ok_or_else(|| self.not_found())
    }

    /// The same without a transaction.
    pub(crate) fn stored(&self, store: &Store) -> Result<Arc<Record>> {
        store
            .get(&self.bucket(), &self.key())
            .ok_or_else(|| self.not_found())
    }

    pub(crate) fn not_found(&self) -> Failure {
        Status::not_found(self.kind, &self.name).into()
    }
}

/// The store's bucket for objects of this kind.
pub(crate) fn bucket(kind: &Kind) -> String {
    let (group, plural) = kind.storage();
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

/// What the keys of a namespace's objects start with; all namespaces, or a cluster-wide kind, with the empty prefix.
pub(crate) fn prefix(kind: &Kind, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if kind.namespaced => format!("{namespace}/"),
        _ => String::new(),
    }
}

/// The object in the form of `kind`.
pub(crate) fn load(kind: &Kind, bytes: &[u8]) -> Result<Value> {
    let mut object = serde_json::from_slice(bytes)?;
    if let Some(view) = kind.view_of {
        (view.from_stored)(&mut object);
    }
    Ok(object)
}

/// The bytes of an object in the form of `kind`; stored bytes are handed out as they are.
pub(crate) fn load_bytes(kind: &Kind, bytes: &Bytes) -> Result<Bytes> {
    match kind.view_of {
        None => Ok(bytes.clone()),
        Some(_) => Ok(load(kind, bytes)?.to_string().into()),
    }
}

/// Bytes to store, stamped with the revision of the write.
fn dump(kind: &Kind, object: &Value, revision: u64) -> Result<Bytes> {
    let mut object = object.clone();
    meta::set_resource_version(&mut object, revision);
    if let Some(view) = kind.view_of {
        (view.to_stored)(&mut object);
    }
    let bytes = serde_json::to_vec(&object)?;
    if bytes.len() > MAX_OBJECT {
        return Err(Status::entity_too_large(MAX_OBJECT).into());
    }
    Ok(bytes.into())
}

/// Writes the object and gives it its new resourceVersion.
fn put(txn: &mut Txn<'_>, target: &ObjectRef, mut object: Value) -> Result<Value> {
    let revision = txn.next_revision();
    let bytes = dump(target.kind, &object, revision)?;
    txn.put(&target.bucket(), &target.key(), bytes);
    meta::set_resource_version(&mut object, revision);
    Ok(object)
}

/// A transaction's end without a write that the client sees.
enum Abort {
    Failed(Failure),
    /// Went through, and is taken back as the client asked (`dryRun=All`).
    DryRun(Box<Value>),
}

impl From<StoreError> for Abort {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for Abort {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs a write in a commit; with `dry_run` everything but the writing happens.
async fn transact<F>(store: &Store, dry_run: bool, write: F) -> Result<Value>
where
    F: FnOnce(&mut Txn<'_>) -> Result<Value> + Send + 'static,
{
    let committed = store.commit(move |txn| match write(txn)? {
        object if dry_run => Err(Abort::DryRun(Box::new(object))),
        object => Ok(object),
    });
    match committed.await {
        Ok(object) => Ok(object),
        Err(Abort::DryRun(object)) => Ok(*object),
        Err(Abort::Failed(failure)) => Err(failure),
    }
}

/// Takes out an Event whose time is over. The record may be of any form; nobody but watchers sees it again.
pub(crate) fn remove_expired(txn: &mut Txn<'_>, bucket: &str, record: &Record) -> Result<()> {
    let mut last: Value = serde_json::from_slice(&record.value)?;
    meta::set_resource_version(&mut last, txn.next_revision());
    txn.delete(bucket, &record.key, last.to_string());
    Ok(())
}

fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Result<()> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(kind, name, errors).into())
    }
}

fn allocation_failed(kind: &Kind, name: &str, error: AllocateError) -> Failure {
    match error {
        AllocateError::Invalid(errors) => Status::invalid(kind, name, &errors).into(),
        AllocateError::Full(message) => Status::internal(message).into(),
    }
}
