//! Reading and writing `metadata` of objects kept as JSON.
//!
//! Readers never fail: a missing or misshapen field reads as empty, since objects have passed the schema check before.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Letters of generated name suffixes: no vowels, no look-alikes (`k8s.io/apimachinery/pkg/util/rand`).
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Names end in five of them.
const SUFFIX_LENGTH: usize = 5;
/// So that name and suffix together fit a DNS label.
const MAX_GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;

/// An entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// Empty for cluster-wide objects.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// The prefix for a server-made name, if the client asked for one.
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// As sent: empty when absent.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

pub fn set_resource_version(object: &mut Value, revision: u64) {
    metadata_mut(object).insert("resourceVersion".to_owned(), revision.to_string().into());
}

/// 0 for kinds that do not count generations.
pub fn generation(object: &Value) -> i64 {
    object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

pub fn set_generation(object: &mut Value, generation: i64) {
    metadata_mut(object).insert("generation".to_owned(), generation.into());
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(key)?
        .as_str()
}

/// The labels as a JSON object; `None` when there are none.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
}

pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    items(object, "finalizers").iter().filter_map(Value::as_str)
}

pub fn owner_references(object: &Value) -> impl Iterator<Item = OwnerReference<'_>> {
    items(object, "ownerReferences").iter().map(|reference| {
        let text = |key| {
            reference
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let flag = |key| reference.get(key).and_then(Value::as_bool).unwrap_or(false);
        OwnerReference {
            api_version: text("apiVersion"),
            kind: text("kind"),
            name: text("name"),
            uid: text("uid"),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    })
}

/// The owner that manages the object, as ReplicaSets manage their Pods.
pub fn controller(object: &Value) -> Option<OwnerReference<'_>> {
    owner_references(object).find(|owner| owner.controller)
}

/// Deletion has been asked for and waits for finalizers or a grace period.
pub fn is_terminating(object: &Value) -> bool {
    deletion_timestamp(object).is_some()
}

pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    time(object, "deletionTimestamp")
}

pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    time(object, "creationTimestamp")
}

/// `metav1.Time`: whole seconds, UTC.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: microseconds, UTC.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Gives a new object its identity and drops what only the server may say.
pub fn stamp_new(
    object: &mut Value,
    namespace: Option<&str>,
    name: &str,
    uid: &str,
    now: Timestamp,
) {
    let metadata = metadata_mut(object);
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "resourceVersion",
    ] {
        metadata.remove(key);
    }
    match namespace {
        Some(namespace) => metadata.insert("namespace".to_owned(), namespace.into()),
        None => metadata.remove("namespace"),
    };
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), format_time(now).into());
}

/// A name from `generateName` and five random bytes.
pub fn generated_name(base: &str, random: [u8; SUFFIX_LENGTH]) -> String {
    let mut end = base.len().min(MAX_GENERATED_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let suffix = random
        .iter()
        .map(|byte| char::from(SUFFIX_ALPHABET[usize::from(*byte) % SUFFIX_ALPHABET.len()]));
    base[..end].chars().chain(suffix).collect()
}

/// Marks the object for deletion at `now + grace`; a second call may only shorten the wait.
///
/// Moves `metadata.generation` where the kind counts it, as upstream's `BeforeDelete` does.
pub fn mark_deleted(object: &mut Value, now: Timestamp, grace_seconds: i64) {
    let deadline = now + jiff::SignedDuration::from_secs(grace_seconds);
    if deletion_timestamp(object).is_some_and(|already| already <= deadline) {
        return;
    }
    let first = !is_terminating(object);
    let generation = generation(object);
    let metadata = metadata_mut(object);
    metadata.insert("deletionTimestamp".to_owned(), format_time(deadline).into());
    metadata.insert(
        "deletionGracePeriodSeconds".to_owned(),
        grace_seconds.into(),
    );
    if first && generation > 0 {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if finalizers(object).any(|f| f == finalizer) {
        return;
    }
    let list = metadata_mut(object)
        .entry("finalizers")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list {
        list.push(finalizer.into());
    }
}

/// Removes a finalizer; the empty list goes too.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let metadata = metadata_mut(object);
    if let Some(Value::Array(list)) = metadata.get_mut("finalizers") {
        list.retain(|f| f != finalizer);
        if list.is_empty() {
            metadata.remove("finalizers");
        }
    }
}

/// The write would change nothing that a reader can see, so it must not make a new revision.
pub fn unchanged(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return new == old;
    };
    let same_metadata = || {
        let strip = |object: &Map<String, Value>| {
            let mut metadata = object
                .get("metadata")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
            metadata
        };
        strip(new) == strip(old)
    };
    let rest = |object: &Map<String, Value>| object.keys().filter(|key| *key != "metadata").count();
    rest(new) == rest(old)
        && new
            .iter()
            .filter(|(key, _)| *key != "metadata")
            .all(|(key, value)| old.get(key) == Some(value))
        && same_metadata()
}

/// `metadata`, made if absent.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(map) = object else {
        unreachable!("made an object above")
    };
    let metadata = map
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    let Value::Object(metadata) = metadata else {
        unreachable!("made an object above")
    };
    metadata
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|m| m.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn items<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object
        .get("metadata")
        .and_then(|m| m.get(key))
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn time(object: &Value, key: &str) -> Option<Timestamp> {
    text(object, key).parse().ok()
}

#[cfg(test)]
mod tests;
