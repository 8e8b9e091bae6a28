//! From a request to its answer.

mod delete;
mod get;
mod health;
mod list;
mod log;
mod meta_documents;
mod patch;
mod scale;
mod watch;
mod write;

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use jiff::Timestamp;

use crate::answer::{self, Failure, Result};
use crate::decode::MAX_BODY;
use crate::identity::Identity;
use crate::kinds::{self, FieldError, Kind, Subresource};
use crate::objects::ObjectRef;
use crate::query::Query;
use crate::route::{ResourcePath, Route};
use crate::server::Shared;
use crate::status::Status;
use crate::table::{IncludeObject, Layout};

/// A request to a resource, resolved.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) kind: &'static Kind,
    /// None: all namespaces, or a cluster-wide kind.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<&'static Subresource>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
}

impl Call {
    /// The object that the path names.
    pub(crate) fn target(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind,
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
        }
    }
}

/// Answers any request.
pub(crate) async fn handle(shared: Arc<Shared>, request: Request<Body>) -> Response {
    let started = std::time::Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let user = request
        .extensions()
        .get::<Identity>()
        .map(|identity| identity.user.clone());
    let response = answer(shared, request)
        .await
        .unwrap_or_else(Failure::into_response);
    tracing::debug!(
        user = user.as_deref().unwrap_or("system:anonymous"),
        %method,
        %uri,
        code = response.status().as_u16(),
        elapsed = ?started.elapsed(),
        "request"
    );
    response
}

async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Result<Response> {
    let path = request.uri().path().to_owned();
    let route = Route::parse(&path);
    let query = Query::parse(request.uri());
    match route {
        Route::Version => return Ok(health::version()),
        Route::Health => return Ok(health::health(&shared, &path, &query)),
        _ if request.extensions().get::<Identity>().is_none() => {
            return Err(Status::unauthorized().into());
        }
        _ => {}
    }
    match route {
        Route::Resource(path) => match resolve(shared, &path, query, &request)? {
            Some(call) => dispatch(call, request).await,
            None => Ok(not_found()),
        },
        other if request.method() == Method::GET => {
            let document = meta_documents::document(&shared, &other, request.headers())?;
            Ok(document.unwrap_or_else(not_found))
        }
        _ => Ok(not_found()),
    }
}

/// An unknown path gets plain text, as upstream's mux answers it.
fn not_found() -> Response {
    answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// What kubectl has commands for is refused in words that it shows.
fn unknown_subresource(
    kind: &'static Kind,
    path: &ResourcePath,
    subresource: &str,
) -> Result<Option<Call>> {
    let streamed = kind.plural == "pods" && STREAMED.contains(&subresource);
    match path.name.as_deref().filter(|_| streamed) {
        Some(name) => Err(Status::not_streamed(kind, name, subresource).into()),
        None => Ok(None),
    }
}

/// `kubectl exec`, `attach` and `port-forward`.
const STREAMED: [&str; 3] = ["exec", "attach", "portforward"];

fn resolve(
    shared: Arc<Shared>,
    path: &ResourcePath,
    query: Query,
    request: &Request<Body>,
) -> Result<Option<Call>> {
    let Some(kind) = kinds::find(&path.group, &path.version, &path.plural) else {
        return Ok(None);
    };
    let subresource = match path.subresource.as_deref() {
        None => None,
        Some(name) => match kind.subresource(name) {
            None => return unknown_subresource(kind, path, name),
            found => found,
        },
    };
    let fits = if kind.namespaced {
        path.namespace.is_some() || path.name.is_none()
    } else {
        path.namespace.is_none()
    };
    if !fits {
        return Ok(None);
    }
    Ok(Some(Call {
        shared,
        kind,
        namespace: path.namespace.clone(),
        name: path.name.clone(),
        subresource,
        query,
        headers: request.headers().clone(),
    }))
}

async fn dispatch(call: Call, request: Request<Body>) -> Result<Response> {
    let method = request.method().clone();
    let verb = match (&method, call.name.is_some()) {
        (&Method::GET, true) => "get",
        (&Method::GET, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => {
            return Err(
                Status::method_not_allowed(call.kind, &method.as_str().to_lowercase()).into(),
            );
        }
    };
    let verbs = call
        .subresource
        .map_or(call.kind.verbs, |subresource| subresource.verbs);
    let needs_namespace = call.kind.namespaced && call.namespace.is_none() && verb != "list";
    let creates_by_name = verb == "create" && call.name.is_some() && call.subresource.is_none();
    if !verbs.contains(&verb) || needs_namespace || creates_by_name {
        return Err(Status::method_not_allowed(call.kind, verb).into());
    }
    let body = read_body(request.into_body()).await?;
    match (call.subresource.map(|subresource| subresource.name), verb) {
        (None, "get" | "list") if call.query.flag("watch") => watch::watch(call).await,
        (None, "list") => list::list(call).await,
        (None | Some("status"), "get") => get::get(&call),
        (None, "create") => write::create(call, body).await,
        (None | Some("status" | "finalize"), "update") => write::update(call, body).await,
        (None | Some("status"), "patch") => patch::patch(call, body).await,
        (None, "delete") => delete::delete(call, body).await,
        (None, "deletecollection") => delete::delete_collection(call, body).await,
        (Some("binding"), "create") => write::bind(call, body).await,
        (Some("scale"), "get") => scale::get(&call),
        (Some("scale"), "update") => scale::update(call, body).await,
        (Some("scale"), "patch") => scale::patch(call, body).await,
        (Some("log"), "get") => log::log(call).await,
        _ => Err(Status::method_not_allowed(call.kind, verb).into()),
    }
}

async fn read_body(body: Body) -> Result<Bytes> {
    let read = axum::body::to_bytes(body, MAX_BODY).await;
    read.map_err(|error| {
        let source: &dyn std::error::Error = &error;
        match source
            .source()
            .is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>())
        {
            true => Status::entity_too_large(MAX_BODY).into(),
            false => Status::bad_request(format!("the body could not be read: {error}")).into(),
        }
    })
}

fn include_object(call: &Call) -> Result<IncludeObject> {
    let text = call.query.get("includeObject").unwrap_or_default();
    IncludeObject::parse(text).ok_or_else(|| {
        let error =
            FieldError::not_supported("includeObject", text, &["Metadata", "None", "Object"]);
        Status::invalid_options("TableOptions", &[error]).into()
    })
}

/// How to lay out the table that the client asked for.
fn layout(call: &Call) -> Result<Layout<'static>> {
    let include = include_object(call)?;
    Ok(Layout {
        kind: call.kind,
        version: "v1",
        include,
        columns: true,
        now: Timestamp::now(),
    })
}
