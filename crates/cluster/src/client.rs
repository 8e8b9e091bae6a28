//! The connection to a Kubernetes API.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::failure::naming;
use crate::source::Error;

/// How long one attempt to connect may take: a node that cannot reach its API must notice soon and say so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An API server and a client of it.
#[derive(Clone)]
pub struct Server {
    pub client: Client,
    /// As the kubeconfig has it, without a slash at the end.
    pub url: Arc<str>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API at {}", self.url)
    }
}

/// The API that `kubeconfig` names; without one, as kubectl finds it: `$KUBECONFIG`,
/// `~/.kube/config`, then the service account of the pod.
///
/// Nothing is sent yet: an API that is down is no error here. Requests that fail name the server ([`describe`](crate::describe)).
pub async fn server(kubeconfig: Option<&Path>) -> Result<Server, Error> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::infer()
            .await
            .map_err(|e| Error::NoKubeconfig(Box::new(e)))?,
    };
    // kube takes it, and panics with the first request.
    if config.cluster_url.scheme().is_none() {
        let url = config.cluster_url.to_string();
        return Err(Error::Address { url });
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    naming(config).map_err(|e| Error::Client(Box::new(e)))
}

/// A client of [`server`].
///
/// # Errors
///
/// As there.
pub async fn kube_client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    Ok(server(kubeconfig).await?.client)
}

async fn from_file(path: &Path) -> Result<Config, Error> {
    let error = |e| Error::Kubeconfig {
        path: path.to_owned(),
        cause: Box::new(e),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(error)
}
