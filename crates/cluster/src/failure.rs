//! Failed requests to the API, in one sentence for people.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use kube::Config;
use kube::client::ClientBuilder;
use kube::core::Status;
use tower::BoxError;
use tower::util::MapErrLayer;

use crate::client::Server;

/// A request that got no answer, with the server that was asked.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {server}")]
struct NoAnswer {
    server: Arc<str>,
    source: BoxError,
}

/// A client of the server of `config`, whose failures name it.
pub(crate) fn naming(config: Config) -> Result<Server, kube::Error> {
    let url = config.cluster_url.to_string();
    let url = Arc::<str>::from(url.trim_end_matches('/'));
    let server = url.clone();
    let name = move |source: BoxError| NoAnswer { server, source };
    let builder = ClientBuilder::try_from(config)?;
    let client = builder.with_layer(&MapErrLayer::new(name)).build();
    Ok(Server { client, url })
}

/// What the server said, or why it said nothing, down to the innermost cause: "connection refused" says more than
/// "client error". The words that kube puts around are left out.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => answer(status),
        kube::Error::Service(cause) => causes(cause.as_ref()),
        other => causes(other),
    }
}

/// A failure as the server put it.
pub(crate) fn answer(status: &Status) -> String {
    match status.code {
        0 => status.message.clone(),
        401 => format!(
            "{} (401): the server does not take the credentials of the kubeconfig",
            status.message
        ),
        code => format!("{} ({code})", status.message),
    }
}

/// An error and its causes, each that says something new.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            let _ = write!(text, ": {inner_text}");
        }
        cause = inner.source();
    }
    text
}
