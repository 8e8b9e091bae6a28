//! Does one [`Op`] against the API server. Decides nothing.

use std::time::Duration;

use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::{DynamicObject, Status};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::object::{Key, Kind, ObjRef, Object};
use crate::plan::{Op, Propagation};

/// Name under which our writes appear in `managedFields`.
const FIELD_MANAGER: &str = "seaway-controllers";

/// What a request did to the image of the cluster.
#[derive(Debug)]
pub(crate) enum Effect {
    Wrote(Object),
    Removed { at: ObjRef, uid: String },
    Nothing,
}

/// Why a request did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    /// The server said no.
    #[error("{}", .0.message)]
    Refused(Box<Status>),
    /// The answer was lost: the write may have happened.
    #[error("no answer from the API server: {0}")]
    Unanswered(kube::Error),
    /// A guard found the cluster other than the plan assumed.
    #[error("{0}")]
    Guard(String),
    /// An object that we cannot read or write as JSON.
    #[error("unreadable object: {0}")]
    Json(serde_json::Error),
}

impl OpError {
    /// Whether someone else was faster; the next plan, made from newer state, takes care of it.
    pub(crate) fn is_race(&self) -> bool {
        match self {
            Self::Refused(status) => matches!(status.code, 404 | 409),
            Self::Guard(_) => true,
            Self::Unanswered(_) | Self::Json(_) => false,
        }
    }

    fn has_code(&self, code: u16) -> bool {
        matches!(self, Self::Refused(status) if status.code == code)
    }
}

impl From<serde_json::Error> for OpError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl From<kube::Error> for OpError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code < 500 => Self::Refused(status),
            other => Self::Unanswered(other),
        }
    }
}

/// Executes one request.
pub(crate) async fn execute(client: &Client, op: &Op) -> Result<Effect, OpError> {
    match op {
        Op::Create { at, body } => create(client, at, body).await,
        Op::Patch {
            at,
            subresource,
            body,
        } => patch(client, at, subresource, body).await,
        Op::Delete {
            at,
            uid,
            propagation,
            grace,
        } => delete(client, at, uid, *propagation, *grace).await,
        Op::Bind { pod, uid, node } => bind(client, pod, uid, node).await,
        Op::Finalize { namespace, body } => {
            let api = api(client, &ObjRef::new(Kind::Namespace, "", namespace));
            let body = typed(Kind::Namespace, "", namespace, body);
            let params = PostParams::default();
            let answer: DynamicObject = api
                .replace_subresource("finalize", namespace, &params, &body)
                .await?;
            effect(Kind::Namespace, answer)
        }
        Op::VerifyAbsent { at, uid } => match fetch(client, at).await? {
            Some(found) if uid.as_ref().is_none_or(|uid| uid == found.uid()) => {
                Err(OpError::Guard(format!("{at} exists after all")))
            }
            _ => Ok(Effect::Nothing),
        },
        Op::VerifyEmpty { kind, namespace } => {
            let api = api(client, &ObjRef::new(*kind, namespace, ""));
            match api
                .list(&ListParams::default().limit(1))
                .await?
                .items
                .is_empty()
            {
                true => Ok(Effect::Nothing),
                false => Err(OpError::Guard(format!(
                    "namespace {namespace} still holds objects of kind {}",
                    kind.as_str()
                ))),
            }
        }
        Op::DeleteAll { kind, namespace } => {
            let api = api(client, &ObjRef::new(*kind, namespace, ""));
            for item in api.list(&ListParams::default()).await? {
                let name = item.metadata.name.unwrap_or_default();
                match api.delete(&name, &DeleteParams::background()).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(Effect::Nothing)
        }
    }
}

/// Reads one object as the server has it now.
pub(crate) async fn fetch(client: &Client, at: &ObjRef) -> Result<Option<Object>, OpError> {
    match api(client, at).get_opt(&at.key.name).await? {
        Some(found) => Ok(Some(Object::from_value(at.kind, json!(found))?)),
        None => Ok(None),
    }
}

async fn create(client: &Client, at: &ObjRef, body: &Value) -> Result<Effect, OpError> {
    let body = typed(at.kind, &at.key.namespace, &at.key.name, body);
    let object: DynamicObject = serde_json::from_value(body)?;
    let mut unanswered = false;
    for pause in [20, 100, 500] {
        match api(client, at)
            .create(&params(), &object)
            .await
            .map_err(OpError::from)
        {
            Ok(answer) if at.kind == Kind::Event => {
                drop(answer);
                return Ok(Effect::Nothing);
            }
            Ok(answer) => return effect(at.kind, answer),
            // Names are random: if it is there now, the unanswered request has put it there.
            Err(error) if error.has_code(409) && unanswered => break,
            Err(OpError::Unanswered(error)) => {
                tracing::debug!(object = %at, %error, "create repeated");
                unanswered = true;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            Err(error) => return Err(error),
        }
    }
    match fetch(client, at).await? {
        Some(found) => Ok(Effect::Wrote(found)),
        None => Err(OpError::Guard(format!("{at} could not be created"))),
    }
}

async fn patch(
    client: &Client,
    at: &ObjRef,
    subresource: &str,
    body: &Value,
) -> Result<Effect, OpError> {
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let (api, name, body) = (api(client, at), &at.key.name, Patch::Merge(body));
    let answer = match subresource {
        "" => api.patch(name, &params, &body).await?,
        other => api.patch_subresource(other, name, &params, &body).await?,
    };
    match at.kind {
        Kind::Event => Ok(Effect::Nothing),
        kind => effect(kind, answer),
    }
}

async fn delete(
    client: &Client,
    at: &ObjRef,
    uid: &str,
    propagation: Propagation,
    grace: Option<u32>,
) -> Result<Effect, OpError> {
    let params = DeleteParams {
        grace_period_seconds: grace,
        propagation_policy: Some(match propagation {
            Propagation::Background => PropagationPolicy::Background,
            Propagation::Foreground => PropagationPolicy::Foreground,
            Propagation::Orphan => PropagationPolicy::Orphan,
        }),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let (at, uid) = (at.clone(), uid.to_owned());
    match api(client, &at).delete(&at.key.name, &params).await {
        // An object that answers without a deletion time was removed at once and is shown for the last time.
        Ok(answer) => match answer.left() {
            Some(object) if is_kept(&object) => effect(at.kind, object),
            _ => Ok(Effect::Removed { at, uid }),
        },
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Effect::Removed { at, uid }),
        Err(error) => Err(error.into()),
    }
}

/// Whether a deleted object is only marked: it waits for finalizers or, as a bound Pod, for its agent.
fn is_kept(object: &DynamicObject) -> bool {
    let meta = &object.metadata;
    meta.deletion_timestamp.is_some()
        && (meta.finalizers.as_ref().is_some_and(|f| !f.is_empty())
            || meta.deletion_grace_period_seconds.is_some_and(|s| s > 0)
            || object.types.as_ref().is_some_and(|t| t.kind == "Namespace"))
}

async fn bind(client: &Client, pod: &Key, uid: &str, node: &str) -> Result<Effect, OpError> {
    let at = ObjRef {
        kind: Kind::Pod,
        key: pod.clone(),
    };
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": &*pod.name, "namespace": &*pod.namespace, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let _: Value = api(client, &at)
        .create_subresource("binding", &pod.name, &params(), &body)
        .await?;
    Ok(fetch(client, &at)
        .await?
        .map_or(Effect::Nothing, Effect::Wrote))
}

fn effect(kind: Kind, answer: DynamicObject) -> Result<Effect, OpError> {
    Ok(Effect::Wrote(Object::from_value(
        kind,
        serde_json::to_value(answer)?,
    )?))
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn api(client: &Client, at: &ObjRef) -> Api<DynamicObject> {
    let resource = at.kind.api_resource();
    match at.key.namespace.is_empty() {
        true => Api::all_with(client.clone(), &resource),
        false => Api::namespaced_with(client.clone(), &at.key.namespace, &resource),
    }
}

/// Completes a body with type and name.
fn typed(kind: Kind, namespace: &str, name: &str, body: &Value) -> Value {
    let mut body = body.clone();
    body["apiVersion"] = json!(kind.api_version());
    body["kind"] = json!(kind.as_str());
    body["metadata"]["name"] = json!(name);
    if !namespace.is_empty() {
        body["metadata"]["namespace"] = json!(namespace);
    }
    body
}
