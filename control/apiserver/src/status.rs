//! Kubernetes `Status` answers, worded as `k8s.io/apimachinery/pkg/api/errors` words them: clients print messages
//! verbatim and decide by `reason`.

mod constructors;

use serde_json::{Value, json};

/// A failed request, as clients see it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP code, repeated in the body.
    pub code: u16,
    /// `metav1.StatusReason`; empty where upstream gives none.
    pub reason: &'static str,
    pub message: String,
    /// Boxed, so that results stay small.
    pub details: Option<Box<Details>>,
    /// Continue token of an expired list, with which the client may go on inconsistently.
    pub continue_token: Option<String>,
}

/// What the error is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// Plural resource name, except for `Invalid`, which gives the kind.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    /// Sent as the `Retry-After` header too, when not 0.
    pub retry_after_seconds: u32,
}

/// One of several reasons, with the field it belongs to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// The `Status` of a successful delete; kubectl waits for `details.uid` to go.
pub fn deleted(group: &str, plural: &str, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name, "kind": plural, "uid": uid });
    if !group.is_empty() {
        details["group"] = group.into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

impl Status {
    /// The JSON body.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if let Some(token) = &self.continue_token {
            body["metadata"]["continue"] = token.as_str().into();
        }
        if let Some(details) = &self.details {
            body["details"] = details.body();
        }
        body
    }

    /// Seconds for the `Retry-After` header, if the client should come back.
    pub fn retry_after(&self) -> Option<u32> {
        self.details
            .as_ref()
            .map(|d| d.retry_after_seconds)
            .filter(|s| *s > 0)
    }
}

impl Details {
    fn body(&self) -> Value {
        let mut body = serde_json::Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            if !text.is_empty() {
                body.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            body.insert(
                "causes".to_owned(),
                self.causes.iter().map(Cause::body).collect(),
            );
        }
        if self.retry_after_seconds > 0 {
            body.insert(
                "retryAfterSeconds".to_owned(),
                self.retry_after_seconds.into(),
            );
        }
        Value::Object(body)
    }
}

impl Cause {
    fn body(&self) -> Value {
        let mut body = serde_json::Map::new();
        for (key, text) in [
            ("reason", &self.reason),
            ("message", &self.message),
            ("field", &self.field),
        ] {
            if !text.is_empty() {
                body.insert(key.to_owned(), text.as_str().into());
            }
        }
        Value::Object(body)
    }
}

#[cfg(test)]
mod tests;
