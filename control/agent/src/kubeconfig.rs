//! The certificate and key of a kubeconfig: the agent serves with what it connects with.
//!
//! kube keeps the key of a kubeconfig to itself once it has built a client; this reads the few fields anew.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// PEM texts of the current context.
pub struct Identity {
    /// The cluster's CA: who signed the callers of our log endpoint.
    pub authority: Vec<u8>,
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// Why a kubeconfig gives no identity to serve with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

impl Identity {
    /// Reads the identity of the current context of a kubeconfig file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|cause| Error::Read {
            path: path.to_owned(),
            cause,
        })?;
        let invalid = |reason: String| Error::Invalid {
            path: path.to_owned(),
            reason,
        };
        let file: File = serde_saphyr::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        let context = file
            .contexts
            .iter()
            .find(|context| context.name == file.current_context)
            .ok_or_else(|| invalid(format!("no context {:?}", file.current_context)))?;
        let (cluster, user) = (&context.context.cluster, &context.context.user);
        let cluster = file.clusters.iter().find(|c| c.name == *cluster);
        let user = file.users.iter().find(|u| u.name == *user);
        let (Some(cluster), Some(user)) = (cluster, user) else {
            return Err(invalid(format!(
                "the cluster or user of context {:?} is missing",
                context.name
            )));
        };
        let (cluster, user) = (&cluster.cluster, &user.user);
        let read = |what, data: &Option<String>, file: &Option<PathBuf>| {
            pem(what, path, data.as_deref(), file.as_deref())
        };
        Ok(Self {
            authority: read(
                "certificate-authority",
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
            )?,
            certificate: read(
                "client-certificate",
                &user.client_certificate_data,
                &user.client_certificate,
            )?,
            key: read("client-key", &user.client_key_data, &user.client_key)?,
        })
    }
}

/// Inline data wins over a path; paths are relative to the kubeconfig (as kubectl reads them).
fn pem(
    what: &str,
    kubeconfig: &Path,
    data: Option<&str>,
    file: Option<&Path>,
) -> Result<Vec<u8>, Error> {
    let invalid = |reason| Error::Invalid {
        path: kubeconfig.to_owned(),
        reason,
    };
    match (data, file) {
        (Some(data), _) => STANDARD
            .decode(data.trim())
            .map_err(|e| invalid(format!("{what}-data is not base64: {e}"))),
        (None, Some(file)) => {
            let path = kubeconfig
                .parent()
                .unwrap_or_else(|| Path::new("."))
                .join(file);
            fs::read(&path).map_err(|cause| Error::Read { path, cause })
        }
        (None, None) => Err(invalid(format!(
            "it has no {what}: the agent serves logs with the certificate that it connects with"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://x', {cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        )
    }

    fn read(text: &str) -> Result<Identity, String> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, text).unwrap();
        fs::write(directory.path().join("ca.pem"), "from a file").unwrap();
        let place = directory.path().display().to_string();
        Identity::read(&path).map_err(|e| e.to_string().replace(&place, "DIR"))
    }

    #[test]
    fn inline_data_and_relative_files() {
        let user = "client-certificate-data: Y2VydA==, client-key-data: a2V5";
        let identity = read(&config("certificate-authority: ca.pem", user)).unwrap();
        assert_eq!(identity.authority, b"from a file");
        assert_eq!(
            (identity.certificate.as_slice(), identity.key.as_slice()),
            (&b"cert"[..], &b"key"[..])
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let user = "client-certificate-data: Y2VydA==, client-key-data: a2V5";
        for (text, want) in [
            (
                config("certificate-authority: ca.pem", "token: x"),
                "DIR/config: it has no client-certificate",
            ),
            (
                config("certificate-authority: no.pem", user),
                "cannot read DIR/no.pem",
            ),
            (
                config("certificate-authority-data: '%'", user),
                "certificate-authority-data is not base64",
            ),
            (
                config("", user).replace("current-context: c", "current-context: d"),
                "no context \"d\"",
            ),
            (
                config("", user).replace("cluster: k,", "cluster: z,"),
                "the cluster or user of context \"c\" is missing",
            ),
        ] {
            let error = read(&text).err().unwrap();
            assert!(error.contains(want), "{error}");
        }
    }
}
