//! OpenAPI v3: what `kubectl create`, `apply`, `edit` and `explain` read before they do anything; and of v2 as much as
//! makes kubectl go on ([`v2`]).
//!
//! Small, generated from the tables of kinds and types, and made once: the documents do not change while the server
//! runs. Clients cache them by the hash in their address.

mod components;
mod operations;
pub mod v2;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::discovery;

/// One group-version's document.
#[derive(Debug)]
pub struct Document {
    group: &'static str,
    version: &'static str,
    /// JSON.
    pub body: String,
    /// SHA-256 of the body in hex.
    pub hash: String,
}

static DOCUMENTS: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let make = |(group, version)| {
        let body = document_value(group, version).to_string();
        let hash = data_encoding::HEXUPPER.encode(&Sha256::digest(body.as_bytes()));
        Document {
            group,
            version,
            body,
            hash,
        }
    };
    discovery::group_versions().into_iter().map(make).collect()
});

/// `GET /openapi/v3`: where the documents are.
pub fn root() -> Value {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|document| {
            let path = prefix(document.group, document.version);
            let address = format!("/openapi/v3{path}?hash={}", document.hash);
            (
                path.trim_start_matches('/').to_owned(),
                json!({ "serverRelativeURL": address }),
            )
        })
        .collect();
    json!({ "paths": paths })
}

/// `GET /openapi/v3/api/v1`, `/openapi/v3/apis/{group}/{version}`.
pub fn document(group: &str, version: &str) -> Option<&'static Document> {
    DOCUMENTS
        .iter()
        .find(|document| document.group == group && document.version == version)
}

/// `/api/v1` or `/apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

fn document_value(group: &str, version: &str) -> Value {
    let kinds: Vec<_> = crate::kinds::all()
        .iter()
        .copied()
        .filter(|k| k.group == group && k.version == version)
        .collect();
    let mut paths = Map::new();
    for kind in &kinds {
        operations::paths(kind, &prefix(group, version), &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Seaway", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": components::schemas(&kinds) },
    })
}

#[cfg(test)]
mod tests;
