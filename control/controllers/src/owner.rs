//! Who controls what: owner references, adoption and release.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::json;

use crate::object::{Cached, Key, ObjRef, Object};
use crate::plan::Op;
use crate::selector;
use crate::state::State;

/// The one owner that manages an object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// The owner reference that makes `owner` the manager of an object.
pub(crate) fn controlled_by(owner: &Object) -> OwnerReference {
    OwnerReference {
        api_version: owner.kind().api_version().to_owned(),
        kind: owner.kind().as_str().to_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The objects of one kind that a manager has, and what it takes to make that so.
pub(crate) struct Claim<K> {
    pub owned: Vec<Arc<K>>,
    /// Adoptions and releases; to be done before anything else.
    pub changes: Vec<Op>,
}

/// Finds a manager's objects: the ones that it controls and its selector matches, plus orphans that it matches.
/// What it controls but no longer matches is released. A manager that is being deleted adopts nothing.
pub(crate) fn claim<K>(
    owner: &Object,
    selector: &LabelSelector,
    state: &State,
    meta: impl Fn(&K) -> &ObjectMeta,
) -> Claim<K>
where
    K: Cached + Clone,
    Object: From<K>,
{
    let mut claim = Claim {
        owned: Vec::new(),
        changes: Vec::new(),
    };
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    for object in state.within::<K>(namespace) {
        let metadata = meta(object);
        let matches = selector::matches(selector, selector::labels(metadata));
        match controller_of(metadata) {
            Some(known) if known.uid != owner.uid() => {}
            Some(_) if matches => claim.owned.push(object.clone()),
            Some(_) if metadata.deletion_timestamp.is_none() => {
                claim.changes.push(set_owners::<K>(metadata, |owners| {
                    owners.retain(|o| o.uid != owner.uid());
                }));
            }
            None if matches
                && metadata.deletion_timestamp.is_none()
                && owner.meta().deletion_timestamp.is_none() =>
            {
                claim.changes.push(set_owners::<K>(metadata, |owners| {
                    owners.push(controlled_by(owner));
                }));
            }
            _ => {}
        }
    }
    claim
}

fn set_owners<K: Cached>(meta: &ObjectMeta, change: impl FnOnce(&mut Vec<OwnerReference>)) -> Op {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    change(&mut owners);
    patch_owners(
        ObjRef {
            kind: K::KIND,
            key: Key::of(meta),
        },
        meta,
        &owners,
    )
}

/// The patch that gives an object other owners. Names the version that was seen, so that it cannot undo the
/// change of somebody else.
pub(crate) fn patch_owners(at: ObjRef, meta: &ObjectMeta, owners: &[OwnerReference]) -> Op {
    Op::Patch {
        at,
        subresource: "",
        body: json!({"metadata": {
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "ownerReferences": owners,
        }}),
    }
}

/// An annotation of an object.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    let annotations: &BTreeMap<String, String> = meta.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}
