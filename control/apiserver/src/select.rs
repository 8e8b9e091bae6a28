//! Selectors of a list or watch, applied to records.

use seaway_store::Record;
use serde_json::{Value, json};

use crate::answer::Result;
use crate::kinds::Kind;
use crate::objects::load;
use crate::query::ListOptions;
use crate::selector::{FieldSelector, LabelSelector, SelectorError};
use crate::status::Status;

/// What a list or watch asks for.
pub(crate) struct Selection {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn parse(kind: &'static Kind, options: &ListOptions) -> Result<Self> {
        let bad = |error: SelectorError| Status::bad_request(error.to_string());
        let labels = LabelSelector::parse(options.label_selector.as_deref().unwrap_or_default())
            .map_err(bad)?;
        let fields = FieldSelector::parse(options.field_selector.as_deref().unwrap_or_default())
            .map_err(bad)?;
        fields.check(kind)?;
        Ok(Self {
            kind,
            labels,
            fields,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, record: &Record) -> bool {
        if let Some(name) = self.fields.name()
            && record.key.rsplit('/').next() != Some(name)
        {
            return false;
        }
        if !self.labels.is_empty() {
            // Labels are parsed once per version of an object, however many watchers select by them.
            let labels = record.view(labels);
            if !self.labels.matches(labels.and_then(Value::as_object)) {
                return false;
            }
        }
        self.fields.is_empty()
            || load(self.kind, &record.value)
                .is_ok_and(|object| self.fields.matches(self.kind, &object))
    }
}

/// `metadata.labels` of an object.
fn labels(bytes: &[u8]) -> Value {
    #[derive(serde::Deserialize)]
    struct Object {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(serde::Deserialize, Default)]
    struct Metadata {
        #[serde(default)]
        labels: Option<serde_json::Map<String, Value>>,
    }
    let object: Option<Object> = serde_json::from_slice(bytes).ok();
    object
        .and_then(|object| object.metadata.labels)
        .map_or_else(|| json!({}), Value::Object)
}
