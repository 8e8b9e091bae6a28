//! The command line. Where kube-proxy has a flag of the same meaning, ours has its name.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use seaway_daemon::LogArgs;
use seaway_model::ownership::{BPFFS_ROOT, RUN_DIR};

/// One node's Services, as iptables rules or as eBPF maps.
#[derive(Debug, Parser)]
#[command(name = "seaway-proxy", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow Services and EndpointSlices and keep the kernel in step with them.
    Run(RunArgs),
    /// Print exactly what `run` would do now, and change nothing.
    Plan(NodeArgs),
    /// Print what the kernel holds of ours, in words.
    Dump(NodeArgs),
    /// Remove everything of ours from this node, in every mode, and verify that it is gone. Needs no API.
    Cleanup(KernelArgs),
    /// Say what this kernel and its tools can do, for both modes.
    Check(KernelArgs),
}

/// How Services get into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Rules in the nat and filter tables.
    Iptables,
    /// Load-balancing maps, with programs at the node's cgroup and links.
    Ebpf,
}

impl Mode {
    /// As `--mode` takes it and `/proxyMode` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ebpf => "ebpf",
        }
    }

    /// The mode that must leave nothing behind while this one is in force.
    pub fn other(self) -> Self {
        match self {
            Self::Iptables => Self::Ebpf,
            Self::Ebpf => Self::Iptables,
        }
    }
}

/// Flags that say how this node's kernel is used; enough for `cleanup` and `check`.
#[derive(Debug, Clone, Args)]
pub struct KernelArgs {
    /// The cgroup (v2) whose processes are served by socket hooks; the root of the hierarchy by default.
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    /// Where maps and links are pinned.
    #[arg(long, value_name = "DIR", default_value = BPFFS_ROOT)]
    pub bpffs_root: PathBuf,

    /// Lock file and sockets.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Flags that say which node this is and where its inputs come from.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// How Services get into the kernel.
    #[arg(long, value_enum, default_value_t = Mode::Iptables, env = "SEAWAY_PROXY_MODE")]
    pub mode: Mode,

    /// API server and credentials; without it, and without --manifests, the Pod's service account is used.
    #[arg(
        long,
        value_name = "FILE",
        env = "KUBECONFIG",
        conflicts_with = "manifests"
    )]
    pub kubeconfig: Option<PathBuf>,

    /// Take Services, EndpointSlices and Nodes from the YAML and JSON files of this directory, followed live.
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    /// Name of this node as the API knows it; the host name in lower case by default.
    #[arg(long, value_name = "NODE")]
    pub hostname_override: Option<String>,

    /// Pod addresses of the whole cluster, one CIDR per family: traffic from elsewhere to a Service is masqueraded.
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNetwork>,

    /// Masquerade all traffic to cluster IPs.
    #[arg(long)]
    pub masquerade_all: bool,

    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// Flags of the daemon.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub node: NodeArgs,

    /// Address of /healthz and /livez.
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10256)))]
    pub healthz_bind_address: SocketAddr,

    /// Address of /metrics and /proxyMode.
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 10249)))]
    pub metrics_bind_address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn two_sources_are_refused() {
        let parsed = Cli::try_parse_from([
            "seaway-proxy",
            "run",
            "--kubeconfig",
            "a",
            "--manifests",
            "b",
        ]);
        assert!(
            parsed
                .unwrap_err()
                .to_string()
                .contains("cannot be used with")
        );
    }

    #[test]
    fn an_unknown_mode_names_the_known_ones() {
        let error = Cli::try_parse_from(["seaway-proxy", "run", "--mode", "ipvs"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("iptables") && error.contains("ebpf"),
            "{error}"
        );
    }
}
