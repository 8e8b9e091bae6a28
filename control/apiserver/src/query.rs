//! Query parameters. Pure.

use crate::kinds::FieldError;
use crate::schema::FieldValidation;
use crate::status::Status;

/// The pairs of a query string. Empty pairs are dropped: kube-rs writes `?&limit=500`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(uri: &http::Uri) -> Self {
        // Decoding replaces what is not UTF-8; into pairs of strings it cannot fail.
        axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .unwrap_or_default()
    }

    /// The first value under the name; an empty value counts as absent, as in Go's decoder.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Whether the name is there, even without a value (`?verbose`).
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Go's `strconv.ParseBool`, with anything unknown as true, as `metav1` converts query parameters.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False"))
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| Status::bad_request(format!("{name}: invalid number {text:?}")))
            })
            .transpose()
    }
}

/// `resourceVersion` and how to match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Unset: the most recent.
    Latest,
    /// `0`: whatever is at hand.
    Any,
    NotOlderThan(u64),
    Exact(u64),
}

/// Options of list and watch requests.
#[derive(Debug, Clone)]
pub(crate) struct ListOptions {
    pub(crate) label_selector: Option<String>,
    pub(crate) field_selector: Option<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: Option<String>,
    pub(crate) freshness: Freshness,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout_seconds: Option<u64>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        let watch = query.flag("watch");
        let send_initial_events = query
            .get("sendInitialEvents")
            .map(|_| query.flag("sendInitialEvents"));
        let limit = query.number("limit")?.filter(|limit| *limit > 0);
        Ok(Self {
            label_selector: query.get("labelSelector").map(str::to_owned),
            field_selector: query.get("fieldSelector").map(str::to_owned),
            limit: limit.and_then(|limit| usize::try_from(limit).ok()),
            continue_token: query.get("continue").map(str::to_owned),
            freshness: freshness(query, watch, send_initial_events)?,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events,
            timeout_seconds: query
                .number("timeoutSeconds")?
                .filter(|seconds| *seconds > 0),
        })
    }
}

/// Worded and ordered as `ValidateListOptions` of apimachinery.
fn freshness(
    query: &Query,
    watch: bool,
    initial_events: Option<bool>,
) -> Result<Freshness, Status> {
    let version = query.get("resourceVersion");
    let matching = query.get("resourceVersionMatch");
    let forbidden = |field: &str, why: &str| {
        Err(Status::invalid_options(
            "ListOptions",
            &[FieldError::forbidden(field, why)],
        ))
    };
    if let Some(number) = version
        && number.parse::<u64>().is_err()
    {
        return Err(invalid_version(number));
    }
    match (matching, watch, initial_events) {
        (Some(_), true, None) => {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        (matching, true, Some(_)) if matching != Some("NotOlderThan") => {
            return forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        (_, false, Some(_)) => {
            return forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        (Some(_), false, None) if version.is_none() => {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        (Some(_), false, None) if query.get("continue").is_some() => {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        (Some("Exact"), false, None) if version == Some("0") => {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        (Some(other), _, _) if !matches!(other, "Exact" | "NotOlderThan") => {
            let error = FieldError::not_supported(
                "resourceVersionMatch",
                other,
                &["Exact", "NotOlderThan", ""],
            );
            return Err(Status::invalid_options("ListOptions", &[error]));
        }
        _ => {}
    }
    let version = version.and_then(|version| version.parse().ok());
    let limited = query.get("limit").is_some_and(|limit| limit != "0");
    Ok(match version {
        None => Freshness::Latest,
        Some(0) => Freshness::Any,
        Some(version) if matching == Some("Exact") => Freshness::Exact(version),
        // Upstream reads a paged list at a plain revision as exactly that revision.
        Some(version) if !watch && limited && matching.is_none() => Freshness::Exact(version),
        Some(version) => Freshness::NotOlderThan(version),
    })
}

fn invalid_version(text: &str) -> Status {
    Status::bad_request(format!(
        "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
    ))
}

/// Options of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
}

impl WriteOptions {
    /// `kind` names the options in messages: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, Status> {
        let invalid = |field: &str, value: &str, allowed: &[&str]| {
            Err(Status::invalid_options(
                kind,
                &[FieldError::not_supported(field, value, allowed)],
            ))
        };
        let dry_run = match query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => return invalid("dryRun", other, &["All"]),
        };
        let text = query.get("fieldValidation").unwrap_or_default();
        let Some(validation) = FieldValidation::parse(text) else {
            return invalid("fieldValidation", text, &["", "Ignore", "Warn", "Strict"]);
        };
        Ok(Self {
            dry_run,
            validation,
        })
    }
}
