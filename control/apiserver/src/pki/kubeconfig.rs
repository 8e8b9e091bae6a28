//! Kubeconfig files with everything embedded: no path in them can break.

use std::path::Path;

use data_encoding::BASE64;

use super::{Authority, Leaf, PkiError, Subject};
use crate::files;

/// Whose kubeconfig to write, and where.
#[derive(Debug, Clone)]
pub struct KubeconfigRequest<'a> {
    /// Data directory of the server: its authority signs.
    pub data_dir: &'a Path,
    pub user: &'a str,
    pub groups: &'a [String],
    /// IP addresses and DNS names under which the holder serves (a node's agent).
    pub names: &'a [String],
    /// URL of the API server.
    pub server: &'a str,
    /// Written with mode 0600.
    pub out: &'a Path,
}

/// Issues a certificate good for client and server use and writes the kubeconfig. The server need not run.
pub fn issue_kubeconfig(request: &KubeconfigRequest<'_>) -> Result<(), PkiError> {
    let authority = Authority::open(request.data_dir)?;
    let leaf = authority.issue(&Subject {
        user: request.user.to_owned(),
        groups: request.groups.to_vec(),
        names: request.names.to_vec(),
        client: true,
        server: true,
    })?;
    let text = render(&authority, &leaf, request.user, request.server);
    Ok(files::write_private(request.out, text.as_bytes())?)
}

/// The file's text.
pub(crate) fn render(authority: &Authority, leaf: &Leaf, user: &str, server: &str) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: seaway
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: seaway
  context:
    cluster: seaway
    user: {user}
current-context: seaway
",
        server = text(server),
        ca = BASE64.encode(authority.certificate().as_bytes()),
        user = text(user),
        certificate = BASE64.encode(leaf.certificate.as_bytes()),
        key = BASE64.encode(leaf.key.as_bytes()),
    )
}
