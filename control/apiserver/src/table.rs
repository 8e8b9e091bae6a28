//! `meta.k8s.io/v1 Table`: what `kubectl get` prints, laid out by the server.

mod age;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::meta;

pub use age::age;

/// What a row carries besides its cells (query parameter `includeObject`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    /// `PartialObjectMetadata`: enough for `-A`, `-L` and `--show-labels`.
    #[default]
    Metadata,
    /// The whole object, for `--sort-by`.
    Object,
}

impl IncludeObject {
    /// `None`, `Metadata` or `Object`; the empty text is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// How to lay out a table.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    pub kind: &'static Kind,
    /// `v1`, or `v1beta1` for old clients.
    pub version: &'a str,
    pub include: IncludeObject,
    /// False for all but the first event of a watch, which clients know how to read.
    pub columns: bool,
    pub now: Timestamp,
}

impl Layout<'_> {
    /// A table of several objects; `metadata` is the list's (resourceVersion, continue, remainingItemCount).
    pub fn list<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a Value>,
        metadata: &Value,
    ) -> Value {
        let rows: Vec<Value> = objects.into_iter().map(|object| self.row(object)).collect();
        self.table(rows, metadata)
    }

    /// A table of one object: the answer to a GET, or the object of a watch event.
    pub fn single(&self, object: &Value) -> Value {
        let metadata = json!({ "resourceVersion": meta::resource_version(object) });
        self.table(vec![self.row(object)], &metadata)
    }

    /// A bookmark: one row of empty cells, whose object carries version and annotations.
    pub fn bookmark(&self, object: &Value) -> Value {
        let metadata = json!({ "resourceVersion": meta::resource_version(object) });
        let cells: Vec<Value> = self
            .kind
            .columns
            .iter()
            .map(|column| {
                if column.kind == "integer" {
                    0.into()
                } else {
                    "".into()
                }
            })
            .collect();
        let row = json!({ "cells": cells, "object": self.included(object) });
        self.table(vec![row], &metadata)
    }

    fn table(&self, rows: Vec<Value>, metadata: &Value) -> Value {
        let columns = if self.columns {
            definitions(self.kind)
        } else {
            Value::Null
        };
        let mut table = json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": columns,
        });
        // Moved in afterwards: the macro would copy every row.
        table["rows"] = Value::Array(rows);
        table
    }

    fn row(&self, object: &Value) -> Value {
        json!({ "cells": self.kind.row(object, self.now), "object": self.included(object) })
    }

    fn included(&self, object: &Value) -> Value {
        match self.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => partial(object, self.version),
            IncludeObject::Object => object.clone(),
        }
    }
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// `PartialObjectMetadataList` of several.
pub fn partial_list<'a>(
    objects: impl IntoIterator<Item = &'a Value>,
    version: &str,
    metadata: &Value,
) -> Value {
    let items: Vec<Value> = objects
        .into_iter()
        .map(|object| partial(object, version))
        .collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "items": items,
    })
}

fn definitions(kind: &Kind) -> Value {
    let column = |column: &crate::kinds::Column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    kind.columns.iter().map(column).collect()
}

#[cfg(test)]
mod tests;
