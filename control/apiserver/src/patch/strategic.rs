//! Strategic merge patch: maps merge, lists merge by a key where the schema names one.
//!
//! There is no RFC; the reference is `k8s.io/apimachinery/pkg/util/strategicpatch` and the tables of its tests.

use serde_json::{Map, Value};

use super::directives::{
    DELETE_FROM_LIST, Directive, MergeError, PATCH, RETAIN_KEYS, SET_ORDER, directive, retain_keys,
};
use super::order::arrange;
use crate::schema::{Merge, Type, TypeDef, registry};

/// The type of the map at hand, as far as it is known.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Def(&'a TypeDef),
    /// A map from text, or nothing known: maps merge, lists are replaced.
    Loose,
}

pub(super) fn merge(
    original: &Value,
    patch: &Value,
    def: Option<&TypeDef>,
) -> Result<Value, MergeError> {
    let shape = def.map_or(Shape::Loose, Shape::Def);
    let empty = Map::new();
    let original = original.as_object().unwrap_or(&empty);
    let patch = patch.as_object().unwrap_or(&empty);
    Ok(Value::Object(merge_map(original, patch, shape)?))
}

fn merge_map(
    original: &Map<String, Value>,
    patch: &Map<String, Value>,
    shape: Shape<'_>,
) -> Result<Map<String, Value>, MergeError> {
    match directive(patch)? {
        Some(Directive::Replace) => {
            let mut replacement = patch.clone();
            replacement.remove(PATCH);
            return Ok(replacement);
        }
        Some(Directive::Delete) => return Ok(Map::new()),
        Some(Directive::Merge) | None => {}
    }
    let mut merged = original.clone();
    retain_keys(&mut merged, patch)?;
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut merged, list, value)?;
        } else if value.is_null() {
            merged.remove(key);
        } else {
            let (ty, strategy) = shape.field(key);
            let value = merge_value(merged.get(key), value, ty, strategy)?;
            merged.insert(key.clone(), value);
        }
    }
    for (key, order) in patch {
        if let Some(list) = key.strip_prefix(SET_ORDER) {
            set_order(&mut merged, original, list, order, shape)?;
        }
    }
    Ok(merged)
}

fn merge_value(
    original: Option<&Value>,
    patch: &Value,
    ty: Option<&Type>,
    strategy: Merge,
) -> Result<Value, MergeError> {
    match patch {
        Value::Object(patch) => {
            let empty = Map::new();
            let original = original.and_then(Value::as_object).unwrap_or(&empty);
            Ok(Value::Object(merge_map(original, patch, Shape::of(ty))?))
        }
        Value::Array(patch) => {
            let original = original
                .and_then(Value::as_array)
                .map_or(&[] as &[Value], Vec::as_slice);
            match strategy {
                Merge::Replace => Ok(patch.iter().map(without_directives).collect()),
                Merge::Union => Ok(union(original, patch)),
                Merge::Key(key) => merge_list(original, patch, key, Shape::of_items(ty)),
            }
        }
        scalar => Ok(scalar.clone()),
    }
}

/// Items of the patch change the items with the same key, or are added at the end.
fn merge_list(
    original: &[Value],
    patch: &[Value],
    key: &'static str,
    shape: Shape<'_>,
) -> Result<Value, MergeError> {
    let mut merged: Vec<Value> = original.to_vec();
    let mut replace = false;
    for item in patch {
        let missing = || MergeError::MissingKey {
            item: item.to_string(),
            key,
        };
        let Some(map) = item.as_object() else {
            return Err(missing());
        };
        let instruction = directive(map)?;
        let same = |other: &Value| map.get(key).is_some_and(|id| other.get(key) == Some(id));
        match instruction {
            // `{$patch: replace}` stands for the whole list, whatever its place in it.
            Some(Directive::Replace) if !map.contains_key(key) => replace = true,
            Some(Directive::Delete) => {
                if !map.contains_key(key) {
                    return Err(missing());
                }
                merged.retain(|other| !same(other));
            }
            _ if !map.contains_key(key) => return Err(missing()),
            _ => match merged.iter_mut().find(|other| same(other)) {
                Some(found) => {
                    let before = found.as_object().cloned().unwrap_or_default();
                    *found = Value::Object(merge_map(&before, map, shape)?);
                }
                None => merged.push(Value::Object(merge_map(&Map::new(), map, shape)?)),
            },
        }
    }
    if replace {
        let kept = patch.iter().filter(|item| item.get(PATCH).is_none());
        return Ok(kept.map(without_directives).collect());
    }
    Ok(Value::Array(merged))
}

fn union(original: &[Value], patch: &[Value]) -> Value {
    let mut merged: Vec<Value> = Vec::new();
    for item in original.iter().chain(patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    Value::Array(merged)
}

fn delete_from_list(
    merged: &mut Map<String, Value>,
    list: &str,
    items: &Value,
) -> Result<(), MergeError> {
    let items = items
        .as_array()
        .ok_or(MergeError::BadFormat("$deleteFromPrimitiveList"))?;
    if let Some(Value::Array(original)) = merged.get_mut(list) {
        original.retain(|item| !items.contains(item));
    }
    Ok(())
}

fn set_order(
    merged: &mut Map<String, Value>,
    original: &Map<String, Value>,
    list: &str,
    order: &Value,
    shape: Shape<'_>,
) -> Result<(), MergeError> {
    let order = order
        .as_array()
        .ok_or(MergeError::BadFormat("$setElementOrder"))?;
    let (_, strategy) = shape.field(list);
    let key = match strategy {
        Merge::Key(key) => Some(key),
        Merge::Union => None,
        // The list was replaced as a whole: it has the patch's order already.
        Merge::Replace => return Ok(()),
    };
    let Some(value) = merged.get_mut(list) else {
        return Ok(());
    };
    let items = value
        .as_array()
        .ok_or_else(|| MergeError::NotAList(list.to_owned()))?;
    let before = original
        .get(list)
        .and_then(Value::as_array)
        .map_or(&[] as &[Value], Vec::as_slice);
    *value = Value::Array(arrange(items, order, before, key));
    Ok(())
}

/// Instructions make no sense in a value that is taken as it is.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
            .map(|(key, value)| (key.clone(), without_directives(value)))
            .collect(),
        other => other.clone(),
    }
}

impl<'a> Shape<'a> {
    fn of(ty: Option<&'a Type>) -> Self {
        match ty {
            Some(Type::Ref(index)) => Self::Def(registry().get(*index)),
            _ => Self::Loose,
        }
    }

    fn of_items(ty: Option<&'a Type>) -> Self {
        match ty {
            Some(Type::List(item)) => Self::of(Some(item)),
            _ => Self::Loose,
        }
    }

    fn field(self, name: &str) -> (Option<&'a Type>, Merge) {
        match self {
            Self::Def(def) => def
                .field(name)
                .map_or((None, Merge::Replace), |f| (Some(&f.ty), f.merge)),
            Self::Loose => (None, Merge::Replace),
        }
    }
}
