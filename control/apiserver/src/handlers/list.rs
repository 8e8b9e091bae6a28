//! Collections.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use seaway_store::{Listing, ReadError, Record};
use serde_json::{Value, json};

use super::{Call, layout};
use crate::answer::{Failure, Result, json as json_answer, json_bytes};
use crate::continuation::Continuation;
use crate::negotiate::{self, Form};
use crate::objects::{bucket, load, load_bytes, prefix};
use crate::query::{Freshness, ListOptions};
use crate::select::Selection;
use crate::status::Status;
use crate::table;

/// How long a list waits for a revision that is not there yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

pub(super) async fn list(call: Call) -> Result<Response> {
    let form = negotiate::form(&call.headers)?;
    let options = ListOptions::parse(&call.query)?;
    let selection = Selection::parse(call.kind, &options)?;
    let page = page(&call, &options, &selection).await?;
    let metadata = page.metadata(&selection);
    let body = match form {
        Form::Object => {
            return Ok(json_bytes(
                StatusCode::OK,
                plain(&call, &page.records, &metadata)?,
            ));
        }
        Form::Table => layout(&call)?.list(&objects(&call, &page.records)?, &metadata),
        Form::Metadata => table::partial_list(&objects(&call, &page.records)?, "v1", &metadata),
    };
    Ok(json_answer(StatusCode::OK, &body))
}

/// The matching records of one answer.
pub(super) struct Page {
    pub(super) revision: u64,
    pub(super) records: Vec<Arc<Record>>,
    /// Key of the last record, and how many matching ones follow it.
    rest: Option<(Arc<str>, usize)>,
}

impl Page {
    fn metadata(&self, selection: &Selection) -> Value {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if let Some((last, remaining)) = &self.rest {
            let token = Continuation {
                revision: Some(self.revision),
                after: last.to_string(),
            };
            metadata["continue"] = token.encode().into();
            // With a selector upstream does not know, and says nothing.
            if selection.is_everything() {
                metadata["remainingItemCount"] = (*remaining).into();
            }
        }
        metadata
    }
}

pub(super) async fn page(
    call: &Call,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Page> {
    let token = options
        .continue_token
        .as_deref()
        .map(Continuation::decode)
        .transpose()?;
    if token.is_some() && !matches!(options.freshness, Freshness::Latest | Freshness::Any) {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        )
        .into());
    }
    let listing = snapshot(call, options.freshness, token.as_ref()).await?;
    let after = token.as_ref().map_or("", |token| &token.after);
    let mut records: Vec<Arc<Record>> = listing
        .records
        .into_iter()
        .filter(|record| &*record.key > after && selection.matches(record))
        .collect();
    let limit = options.limit.unwrap_or(usize::MAX);
    let rest = match records.get(limit.wrapping_sub(1)) {
        Some(last) if records.len() > limit => Some((last.key.clone(), records.len() - limit)),
        _ => None,
    };
    records.truncate(limit);
    Ok(Page {
        revision: listing.revision,
        records,
        rest,
    })
}

async fn snapshot(
    call: &Call,
    freshness: Freshness,
    token: Option<&Continuation>,
) -> Result<Listing> {
    let store = &call.shared.store;
    let (bucket, prefix) = (
        bucket(call.kind),
        prefix(call.kind, call.namespace.as_deref()),
    );
    if let Some(token) = token {
        return store
            .list(&bucket, &prefix, token.revision)
            .map_err(|error| match error {
                ReadError::Compacted { .. } => {
                    let again = Continuation {
                        revision: None,
                        after: token.after.clone(),
                    };
                    Status::expired_continue(Some(again.encode())).into()
                }
                future => Failure::from(future),
            });
    }
    let at = match freshness {
        Freshness::Latest | Freshness::Any => None,
        Freshness::NotOlderThan(revision) => {
            wait_for(call, revision).await?;
            None
        }
        Freshness::Exact(revision) => {
            wait_for(call, revision).await?;
            Some(revision)
        }
    };
    Ok(store.list(&bucket, &prefix, at)?)
}

/// Waits a little for a revision of the future.
pub(super) async fn wait_for(call: &Call, revision: u64) -> Result<()> {
    let store = &call.shared.store;
    match tokio::time::timeout(FUTURE_WAIT, store.wait_for(revision)).await {
        Ok(waited) => Ok(waited?),
        Err(_) => Err(Status::too_large_resource_version(revision, store.revision()).into()),
    }
}

fn objects(call: &Call, records: &[Arc<Record>]) -> Result<Vec<Value>> {
    records
        .iter()
        .map(|record| load(call.kind, &record.value))
        .collect()
}

/// The list as the stored bytes one after the other: nothing is parsed.
fn plain(call: &Call, records: &[Arc<Record>], metadata: &Value) -> Result<Bytes> {
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        call.kind.kind,
        call.kind.api_version(),
        metadata
    );
    let size: usize = records.iter().map(|record| record.value.len() + 1).sum();
    let mut body = Vec::with_capacity(head.len() + size + 2);
    body.extend_from_slice(head.as_bytes());
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&load_bytes(call.kind, &record.value)?);
    }
    body.extend_from_slice(b"]}");
    Ok(body.into())
}
