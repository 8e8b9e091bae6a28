//! The manifests of this directory, and what becomes of them in a lab.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use seaway_lab::{Lab, NodeConfig};

/// The node port of `echo.yaml`.
pub const NODE_PORT: u16 = 30080;

/// A file of `tests/manifests`.
pub fn manifest(name: &str) -> PathBuf {
    // The demo may run from an installed place: then the manifests are in the directory it is started in.
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let directory = if built.is_dir() {
        built
    } else {
        PathBuf::from("tests/manifests")
    };
    directory.join(name)
}

/// `kubectl apply -f`.
pub async fn apply(lab: &Lab, name: &str) -> Result<String> {
    let file = manifest(name).to_string_lossy().into_owned();
    Ok(lab.kubectl_ok(["apply", "-f", &file]).await?)
}

/// Pods of a manifest, all ready; `app` is their label.
pub async fn start_pods(lab: &Lab, manifest: &str, app: &str) -> Result<()> {
    let applied = lab.kubectl_with(manifest, ["apply", "-f", "-"]).await?;
    ensure!(applied.code == Some(0), "{}", applied.stderr);
    let label = format!("app={app}");
    let ready = ["-l", &label, "--for=condition=Ready", "--timeout=60s"];
    lab.kubectl_ok([&["wait", "pod"][..], &ready].concat())
        .await?;
    Ok(())
}

/// The echo Deployment with its Services, and one client on each of three nodes, all ready.
pub async fn deploy(lab: &Lab) -> Result<()> {
    apply(lab, "echo.yaml").await?;
    start_clients(lab).await?;
    rolled_out(lab).await
}

/// One client on each of three nodes, all ready.
pub async fn start_clients(lab: &Lab) -> Result<()> {
    apply(lab, "clients.yaml").await?;
    lab.kubectl_ok([
        "wait",
        "pod",
        "-l",
        "app=client",
        "--for=condition=Ready",
        "--timeout=30s",
    ])
    .await?;
    Ok(())
}

/// Waits for the echo Deployment to be as it should be.
pub async fn rolled_out(lab: &Lab) -> Result<()> {
    lab.kubectl_ok(["rollout", "status", "deployment/echo", "--timeout=30s"])
        .await?;
    Ok(())
}

/// The names of the echo pods that are not on their way out.
pub async fn replicas(lab: &Lab) -> Result<BTreeSet<String>> {
    let template = r#"go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}"#;
    let names = lab
        .kubectl_ok(["get", "pods", "-l", "app=echo", "-o", template])
        .await?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Address and port of a Service inside of the cluster.
pub async fn cluster_ip(lab: &Lab, service: &str) -> Result<SocketAddr> {
    let path = "jsonpath={.spec.clusterIP}";
    let ip = lab
        .kubectl_ok(["get", "service", service, "-o", path])
        .await?;
    let ip = ip
        .trim()
        .parse()
        .with_context(|| format!("cluster IP of {service}: {ip:?}"))?;
    Ok(SocketAddr::new(ip, 80))
}

/// Address and port of `echo-outside` on a node.
pub fn node_port(node: &NodeConfig) -> SocketAddr {
    SocketAddr::new(node.address(), NODE_PORT)
}
