use serde_json::Value;

use crate::answer::Result;
use crate::kinds::FieldError;
use crate::query::{Query, WriteOptions};
use crate::status::Status;

/// What happens to dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `metav1.DeleteOptions`
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// From the decoded body, or from the query where there is none.
    pub(crate) fn parse(body: Option<&Value>, query: &Query) -> Result<Self> {
        let mut options = match body {
            Some(body) => Self::of_body(body)?,
            None => Self::of_query(query)?,
        };
        options.dry_run |= WriteOptions::parse(query, "DeleteOptions")?.dry_run;
        if let Some(seconds) = options.grace_seconds.filter(|seconds| *seconds < 0) {
            let detail = "must be greater than or equal to 0";
            return refuse(FieldError::invalid("gracePeriodSeconds", seconds, detail));
        }
        Ok(options)
    }

    fn of_body(body: &Value) -> Result<Self> {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
        let orphan = body.get("orphanDependents").and_then(Value::as_bool);
        let propagation = match (text("/propagationPolicy"), orphan) {
            (Some(policy), _) => Some(Propagation::parse(policy)?),
            (None, Some(true)) => Some(Propagation::Orphan),
            (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        };
        let dry_run = body.get("dryRun").and_then(Value::as_array);
        let mut dry_run = dry_run.into_iter().flatten();
        if let Some(other) = dry_run.clone().find(|value| *value != "All") {
            return refuse(FieldError::not_supported("dryRun", other.clone(), &["All"]));
        }
        Ok(Self {
            grace_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation,
            uid: text("/preconditions/uid").map(str::to_owned),
            resource_version: text("/preconditions/resourceVersion").map(str::to_owned),
            dry_run: dry_run.next().is_some(),
        })
    }

    fn of_query(query: &Query) -> Result<Self> {
        let seconds = query.get("gracePeriodSeconds").map(|text| {
            text.parse().map_err(|_| {
                Status::bad_request(format!("gracePeriodSeconds: invalid number {text:?}"))
            })
        });
        let policy = query.get("propagationPolicy").map(Propagation::parse);
        Ok(Self {
            grace_seconds: seconds.transpose()?,
            propagation: policy.transpose()?,
            ..Self::default()
        })
    }
}

impl Propagation {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "Background" => Ok(Self::Background),
            "Foreground" => Ok(Self::Foreground),
            "Orphan" => Ok(Self::Orphan),
            other => {
                let allowed = ["Foreground", "Background", "Orphan"];
                refuse(FieldError::not_supported(
                    "propagationPolicy",
                    other,
                    &allowed,
                ))
            }
        }
    }
}

fn refuse<T>(error: FieldError) -> Result<T> {
    Err(Status::invalid_options("DeleteOptions", &[error]).into())
}
