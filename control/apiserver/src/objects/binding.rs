//! `POST pods/NAME/binding`: the scheduler's decision.

use jiff::Timestamp;
use seaway_store::Store;
use serde_json::Value;

use super::{ObjectRef, load, put, transact};
use crate::answer::Result;
use crate::kinds;
use crate::meta;
use crate::status::Status;

/// Gives the Pod its node, once.
pub(crate) async fn bind(
    store: &Store,
    pod: ObjectRef,
    binding: Value,
    dry_run: bool,
) -> Result<()> {
    transact(store, dry_run, move |txn| {
        let record = pod.record(txn)?;
        let mut object = load(pod.kind, &record.value)?;
        let wanted = meta::uid(&binding);
        if !wanted.is_empty() && wanted != meta::uid(&object) {
            return Err(
                Status::uid_precondition(pod.kind, &pod.name, wanted, meta::uid(&object)).into(),
            );
        }
        kinds::bind_pod(&mut object, &binding, Timestamp::now())?;
        put(txn, &pod, object)
    })
    .await?;
    Ok(())
}
