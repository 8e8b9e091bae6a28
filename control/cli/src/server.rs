//! `seaway server`: store, API server and controllers in one process.

mod dial;
mod listen;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use ipnetwork::IpNetwork;
use seaway_apiserver::{ApiServer, Config};
use seaway_daemon::{parse_cidr, stop_signal};
use seaway_kernel::file_lock::holder;
use seaway_store::{Options, Store, StoreError};
use tokio_util::sync::CancellationToken;

use dial::FromNamespace;
use listen::Listen;
use settings::Settings;

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Directory of the store, the certificate authority and admin.kubeconfig; created if absent
    #[arg(long, value_name = "DIR", default_value = "/var/lib/seaway/server")]
    data_dir: PathBuf,

    /// Where to listen; `@PATH` opens the socket in the network namespace at PATH. May be repeated
    #[arg(long, value_name = "ADDR:PORT[@NETNS]", default_value = "0.0.0.0:6443")]
    listen: Vec<Listen>,

    /// Where clients and pods reach the server [default: the first --listen with an address of its own]
    #[arg(long, value_name = "ADDR:PORT")]
    advertise_address: Option<SocketAddr>,

    /// Further names and addresses for the serving certificate
    #[arg(long, value_name = "NAME,IP", value_delimiter = ',')]
    tls_san: Vec<String>,

    /// Range of pod addresses, one per address family
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = parse_cidr,
        default_value = "10.244.0.0/16"
    )]
    cluster_cidr: Vec<IpNetwork>,

    /// Prefix length of the part of an IPv4 --cluster-cidr that each node gets
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    node_cidr_mask_size: u8,

    /// Prefix length of the part of an IPv6 --cluster-cidr that each node gets
    #[arg(long, value_name = "BITS", default_value_t = 64)]
    node_cidr_mask_size_ipv6: u8,

    /// Range of Service addresses, one per address family; the first family is the primary one
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = parse_cidr,
        default_value = "10.96.0.0/16"
    )]
    service_cidr: Vec<IpNetwork>,

    /// Ports for Services of type NodePort and LoadBalancer
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = settings::ports)]
    service_node_port_range: (u16, u16),

    /// Silence after which a node counts as lost
    #[arg(long, value_name = "DURATION", default_value = "50s", value_parser = settings::duration)]
    node_monitor_grace_period: Duration,

    /// Time that pods without a toleration of their own stay on a lost node
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = settings::duration)]
    pod_eviction_timeout: Duration,
}

/// Runs until SIGTERM or SIGINT. Nothing is written before all flags are valid and all sockets are open.
pub(crate) async fn run(args: ServerArgs) -> anyhow::Result<()> {
    let settings = Settings::new(&args)?;
    let mut listeners = Vec::new();
    for listen in &args.listen {
        listeners.push(listen.open()?);
    }
    let dialer = FromNamespace::of(&args.listen, settings.advertise)?;
    let store = open_store(&args.data_dir)?;
    let mut config = Config::new(args.data_dir.clone(), settings.advertise, settings.ranges);
    config.serving_names = args.tls_san.clone();
    if let Some(dialer) = dialer {
        config.dialer = Arc::new(dialer);
    }
    let server = ApiServer::new(store, config)
        .await
        .with_context(|| format!("--data-dir {}", args.data_dir.display()))?;
    let mut controllers = settings.controllers;
    controllers.ca_pem = server.authority().certificate().to_owned();
    serve(server, listeners, controllers, &args).await
}

async fn serve(
    server: ApiServer,
    listeners: Vec<std::net::TcpListener>,
    config: seaway_controllers::ControllersConfig,
    args: &ServerArgs,
) -> anyhow::Result<()> {
    let stop = stop_signal().context("cannot handle signals")?;
    let shutdown = CancellationToken::new();
    let client = kube::Client::new(server.in_process_client(), "default");
    let controllers = tokio::spawn(seaway_controllers::run(client, config, shutdown.clone()));
    let serving = {
        let (server, shutdown) = (server.clone(), shutdown.clone());
        tokio::spawn(async move { server.serve(listeners, shutdown).await })
    };
    let (mut controllers, mut serving) = (controllers, serving);
    for listen in &args.listen {
        tracing::info!(%listen, "API server listens");
    }
    let kubeconfig = args.data_dir.join("admin.kubeconfig");
    tracing::info!(kubeconfig = %kubeconfig.display(), "ready");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd was not told that the server is ready");
    }
    tokio::select! {
        () = stop => {}
        ended = &mut serving => {
            ended.context("the API server died")??;
            bail!("the API server ended by itself");
        }
        ended = &mut controllers => {
            ended.context("the controllers died")?;
            bail!("the controllers ended by themselves; the log says why");
        }
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    shutdown.cancel();
    serving.await.context("the API server died")??;
    controllers.await.context("the controllers died")?;
    Ok(())
}

fn open_store(dir: &std::path::Path) -> anyhow::Result<Store> {
    Store::open(dir, Options::default()).map_err(|error| match error {
        StoreError::Locked { path } => {
            let file = std::fs::File::open(path).ok();
            let holder = file.and_then(|file| holder(&file));
            anyhow::anyhow!(
                "--data-dir {}: {} uses it; stop that one or name another directory",
                dir.display(),
                holder.as_deref().unwrap_or("another server")
            )
        }
        StoreError::Io { .. } => anyhow::anyhow!(
            "--data-dir {}: {error}; name a directory that this user can write",
            dir.display()
        ),
        other => anyhow::anyhow!("--data-dir {}: {other}", dir.display()),
    })
}

#[cfg(test)]
mod tests;
