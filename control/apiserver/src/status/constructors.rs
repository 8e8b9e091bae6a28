//! One constructor per reason.

use super::{Cause, Details, Status};
use crate::kinds::{FieldError, Kind};

/// Upstream's message for an update that lost the race.
const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Status {
    /// 400: the request itself makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    /// 400 for a body that does not decode into its kind; `error` is for example
    /// `strict decoding error: unknown field "spec.foo"`.
    pub fn cannot_be_handled(kind: &Kind, error: &str) -> Self {
        Self::bad_request(format!(
            "{k} in version \"{v}\" cannot be handled as a {k}: {error}",
            k = kind.kind,
            v = kind.version
        ))
    }

    /// 400: a field selector names a field this kind has no index for.
    pub fn unsupported_field_label(label: &str) -> Self {
        Self::bad_request(format!("field label not supported: {label}"))
    }

    /// 400: body and URL disagree about the namespace.
    pub fn namespace_mismatch() -> Self {
        Self::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )
    }

    /// 400: body and URL disagree about the name.
    pub fn name_mismatch(object: &str, url: &str) -> Self {
        Self::bad_request(format!(
            "the name of the object ({object}) does not match the name on the URL ({url})"
        ))
    }

    /// 401: no credentials that we accept.
    pub fn unauthorized() -> Self {
        Self::plain(401, "Unauthorized", "Unauthorized")
    }

    /// 403: known, but not allowed.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let resource = kind.qualified_resource();
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        Self {
            details: Some(Box::new(Details::of(kind, name))),
            ..Self::plain(403, "Forbidden", message)
        }
    }

    /// 403 with cause `NamespaceTerminating`, which controllers look for.
    pub fn namespace_terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut status = Self::forbidden(kind, name, &why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        status
    }

    /// 404: no such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified_resource());
        Self {
            details: Some(Box::new(Details::of(kind, name))),
            ..Self::plain(404, "NotFound", message)
        }
    }

    /// 404 for an object of a kind that may not be in the table (`namespaces "nope" not found`).
    pub fn resource_not_found(plural: &str, name: &str) -> Self {
        let details = Details {
            name: name.to_owned(),
            kind: plural.to_owned(),
            ..Details::default()
        };
        Self {
            details: Some(Box::new(details)),
            ..Self::plain(404, "NotFound", format!("{plural} \"{name}\" not found"))
        }
    }

    /// 405: the resource exists, the verb does not. `action` is the verb in lower case.
    pub fn method_not_allowed(kind: &Kind, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind \"{}\"",
            kind.qualified_resource()
        );
        Self {
            details: Some(Box::new(Details::of(kind, ""))),
            ..Self::plain(405, "MethodNotAllowed", message)
        }
    }

    /// 405: what a kubelet offers over an upgraded connection, and our agent does not.
    pub fn not_streamed(kind: &Kind, name: &str, subresource: &str) -> Self {
        let message = format!(
            "this server does not offer {subresource} of pods; in a lab, `seaway lab exec {name} -- COMMAND` runs a command in a pod"
        );
        Self {
            details: Some(Box::new(Details::of(kind, name))),
            ..Self::plain(405, "MethodNotAllowed", message)
        }
    }

    /// 406: the client wants a media type that we cannot write.
    pub fn not_acceptable(types: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            types.join(", ")
        );
        Self::plain(406, "NotAcceptable", message)
    }

    /// 409 on create.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified_resource());
        Self {
            details: Some(Box::new(Details::of(kind, name))),
            ..Self::plain(409, "AlreadyExists", message)
        }
    }

    /// 409 on create with generateName after all attempts met existing names.
    pub fn generate_name_conflict(kind: &Kind, name: &str) -> Self {
        let mut status = Self::already_exists(kind, name);
        status
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        if let Some(details) = &mut status.details {
            details.retry_after_seconds = 1;
        }
        status
    }

    /// 409: the write cannot be done on the object as it is now.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.qualified_resource()
        );
        Self {
            details: Some(Box::new(Details::of(kind, name))),
            ..Self::plain(409, "Conflict", message)
        }
    }

    /// 409: the resourceVersion sent is not the current one.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(kind, name, MODIFIED)
    }

    /// 409: `preconditions.uid` (or `metadata.uid`) is another object's.
    pub fn uid_precondition(kind: &Kind, name: &str, wanted: &str, found: &str) -> Self {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        Self::conflict(kind, name, &why)
    }

    /// 409: `preconditions.resourceVersion` is not the current one.
    pub fn version_precondition(kind: &Kind, name: &str, wanted: &str, found: &str) -> Self {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {found}"
        );
        Self::conflict(kind, name, &why)
    }

    /// 410 for lists; with a continue token the client may go on from where it was, inconsistently.
    pub fn expired(message: impl Into<String>, continue_token: Option<String>) -> Self {
        Self {
            continue_token,
            ..Self::plain(410, "Expired", message)
        }
    }

    /// 410 for a continue token whose revision has been compacted.
    pub fn expired_continue(continue_token: Option<String>) -> Self {
        Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new \
             list without the continue parameter, or use the continue token in this response to retrieve the \
             remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
             that were created, modified, or deleted between the time the first chunk was returned and now may show \
             up in the list.",
            continue_token,
        )
    }

    /// 410 for a list at an exact revision that has been compacted.
    pub fn expired_list() -> Self {
        Self::expired(
            "The resourceVersion for the provided list is too old.",
            None,
        )
    }

    /// 410, sent inside a watch stream as its ERROR event.
    pub fn too_old_resource_version(asked: u64, oldest: u64) -> Self {
        Self::expired(
            format!("too old resource version: {asked} ({oldest})"),
            None,
        )
    }

    /// 413: the body is larger than the server reads.
    pub fn entity_too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self {
            details: Some(Box::new(Details::default())),
            ..Self::plain(413, "RequestEntityTooLarge", message)
        }
    }

    /// 415: a body in a format that this path does not read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self {
            details: Some(Box::new(Details::default())),
            ..Self::plain(415, "UnsupportedMediaType", message)
        }
    }

    /// 422 with one cause per field; kubectl shows the message, `edit` the fields.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.kind.to_owned(),
            ..Details::default()
        };
        Self::invalid_fields(&kind.qualified_kind(), details, errors)
    }

    /// 422 for a patch that does not make an object of the kind: the patch is a field of the request.
    pub fn invalid_patch(patch: String, error: &str) -> Self {
        let error = FieldError::invalid("patch", patch, error);
        Self::invalid_fields("", Details::default(), &[error])
    }

    /// 422 for list and watch options that exclude each other (`ListOptions.meta.k8s.io "" is invalid: ...`).
    pub fn invalid_options(options: &str, errors: &[FieldError]) -> Self {
        let details = Details {
            group: "meta.k8s.io".to_owned(),
            kind: options.to_owned(),
            ..Details::default()
        };
        Self::invalid_fields(&format!("{options}.meta.k8s.io"), details, errors)
    }

    fn invalid_fields(what: &str, mut details: Details, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(ToString::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let why = match texts.as_slice() {
            [only] => only.clone(),
            _ => format!("[{}]", texts.join(", ")),
        };
        details.causes = errors
            .iter()
            .map(|e| Cause {
                reason: e.kind.reason().to_owned(),
                message: e.body(),
                field: e.field.clone(),
            })
            .collect();
        let message = format!("{what} \"{}\" is invalid: {why}", details.name);
        Self {
            details: Some(Box::new(details)),
            ..Self::plain(422, "Invalid", message)
        }
    }

    /// 500: our fault.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let error = error.to_string();
        let details = Details {
            causes: vec![Cause {
                message: error.clone(),
                ..Cause::default()
            }],
            ..Details::default()
        };
        let message = format!("Internal error occurred: {error}");
        Self {
            details: Some(Box::new(details)),
            ..Self::plain(500, "InternalError", message)
        }
    }

    /// 500 without a reason, as upstream answers a create that carries a resourceVersion.
    pub fn version_on_create() -> Self {
        Self::plain(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        )
    }

    /// 503: not now.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::plain(503, "ServiceUnavailable", why)
    }

    /// 504 for a list at a revision that does not exist yet.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let details = Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }],
            retry_after_seconds: 1,
            ..Details::default()
        };
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        Self {
            details: Some(Box::new(details)),
            ..Self::plain(504, "Timeout", message)
        }
    }

    /// 504 for everything else that took too long.
    pub fn timeout(why: &str) -> Self {
        Self {
            details: Some(Box::new(Details::default())),
            ..Self::plain(504, "Timeout", format!("Timeout: {why}"))
        }
    }

    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            continue_token: None,
        }
    }
}

impl Details {
    fn of(kind: &Kind, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.plural.to_owned(),
            ..Self::default()
        }
    }
}
