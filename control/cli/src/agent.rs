//! `seaway agent`: the node agent of the bundled control plane.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use seaway_agent::Config;
use seaway_daemon::stop_signal;
use tracing::info;

/// Runs the Pods that are bound to this node, as network namespaces with processes.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Connection to the API server; its client certificate also serves the log endpoint.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,

    /// Name of the Node object.
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: String,

    /// Address of this node in the cluster; at most one per family.
    #[arg(long, value_name = "IP", required = true, value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,

    /// The cgroup (version 2) of this node; Pods go into `pods` below it [default: that of this process].
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_root: Option<PathBuf>,

    /// Directory of the CNI config lists.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,

    /// Directory of the CNI plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub(crate) cni_bin_dir: PathBuf,

    /// For what does not survive a reboot.
    #[arg(long, value_name = "DIR", default_value = "/run/seaway")]
    pub(crate) run_dir: PathBuf,

    /// For the records of Pods and what they print.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/seaway")]
    pub(crate) state_dir: PathBuf,

    /// Start of the names of Pods' network namespaces in /run/netns.
    #[arg(long, value_name = "PREFIX", default_value = "sw-pod-")]
    pub(crate) netns_prefix: String,

    /// Where the API server asks for logs, over TLS [default: the first --node-ip, port 10250].
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) bind_address: Option<SocketAddr>,
}

/// kubelet's port.
const PORT: u16 = 10250;

/// Runs until SIGTERM or SIGINT; the Pods go on, and the next agent takes them over.
pub(crate) async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let Some(first) = args.node_ip.first() else {
        bail!("--node-ip: at least one address is needed");
    };
    let bind_address = args.bind_address.unwrap_or(SocketAddr::new(*first, PORT));
    let cgroup_root = match args.cgroup_root {
        Some(path) => path,
        None => seaway_kernel::cgroup::own()?,
    };
    let program = std::env::current_exe().context("cannot find our own executable")?;
    let config = Config {
        kubeconfig: args.kubeconfig,
        node_name: args.node_name,
        node_ips: args.node_ip,
        cgroup_root,
        cni_conf_dir: args.cni_conf_dir,
        cni_bin_dir: args.cni_bin_dir,
        run_dir: args.run_dir,
        state_dir: args.state_dir,
        netns_prefix: args.netns_prefix,
        bind_address,
        program,
    };
    let stop = stop_signal().context("cannot handle signals")?;
    tokio::select! {
        result = seaway_agent::run(config) => result?,
        () = stop => info!("the agent ends, its pods go on"),
    }
    Ok(())
}
