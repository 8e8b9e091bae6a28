//! `seaway kubeconfig`: credentials for a user or a node, signed by the cluster's authority.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use seaway_apiserver::pki::{KubeconfigRequest, issue_kubeconfig};

#[derive(Debug, Clone, Args)]
pub(crate) struct KubeconfigArgs {
    /// Data directory of the server whose authority signs
    #[arg(long, value_name = "DIR", default_value = "/var/lib/seaway/server")]
    data_dir: PathBuf,

    /// Name of the user, such as system:node:n1
    #[arg(long, value_name = "NAME")]
    user: String,

    /// A group of the user, such as system:nodes; may be repeated
    #[arg(long = "group", value_name = "NAME", value_delimiter = ',')]
    groups: Vec<String>,

    /// Addresses and names under which the holder serves, as a node's agent does
    #[arg(long, value_name = "IP,NAME", value_delimiter = ',')]
    san: Vec<String>,

    /// URL of the API server
    #[arg(long, value_name = "https://ADDR:PORT")]
    server: String,

    /// File to write, with mode 0600
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the file. The server need not run, but must have run once: an authority made here would be nobody's.
pub(crate) fn run(args: &KubeconfigArgs) -> anyhow::Result<()> {
    let dir = args.data_dir.display();
    if !args.server.starts_with("https://") {
        bail!(
            "--server {}: the API server speaks TLS only; give a URL such as https://192.168.100.254:6443",
            args.server
        );
    }
    if !args.data_dir.join("pki").is_dir() {
        bail!(
            "--data-dir {dir}: no certificate authority there; start `seaway server --data-dir {dir}` once, or name its directory"
        );
    }
    issue_kubeconfig(&KubeconfigRequest {
        data_dir: &args.data_dir,
        user: &args.user,
        groups: &args.groups,
        names: &args.san,
        server: &args.server,
        out: &args.out,
    })
    .with_context(|| format!("no kubeconfig for {}", args.user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &std::path::Path, server: &str) -> KubeconfigArgs {
        KubeconfigArgs {
            data_dir: dir.join("data"),
            user: "system:node:n1".to_owned(),
            groups: vec!["system:nodes".to_owned()],
            san: vec!["192.0.2.1".to_owned(), "n1".to_owned()],
            server: server.to_owned(),
            out: dir.join("kubeconfig"),
        }
    }

    #[test]
    fn no_authority_is_made_by_accident() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(&args(dir.path(), "https://192.0.2.254:6443")).unwrap_err();
        assert!(
            error.to_string().contains("no certificate authority"),
            "{error}"
        );
        assert!(!dir.path().join("data").exists());
    }

    #[test]
    fn plain_http_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(&args(dir.path(), "http://192.0.2.254:6443")).unwrap_err();
        assert!(error.to_string().contains("speaks TLS only"), "{error}");
    }
}
