//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgAction, Args, Parser, Subcommand};
use ipnetwork::IpNetwork;
use seaway_daemon::{LogArgs, parse_cidr};
use seaway_model::ownership::{RUN_DIR, STATE_DIR, VXLAN_PORT, VXLAN_VNI};

use crate::files::Places;
use crate::plan::{ChecksumOffload, ReceiveOffload, Settings};

/// Keeps the VXLAN mesh of this node in step with the Nodes of the cluster
#[derive(Debug, Parser)]
#[command(name = "seaway-overlay", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub log: LogArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, in the node's network namespace
    Run(RunArgs),
    /// Show the mesh as the running daemon sees it
    Status(StatusArgs),
    /// Remove everything of the overlay from this node; needs no API
    Cleanup(PlaceArgs),
}

/// Which node this is, and where the Nodes are listed.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// Kubeconfig of the API server; default: $KUBECONFIG, ~/.kube/config, or the service account of a pod
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    pub kubeconfig: Option<PathBuf>,
    /// Follow the manifests of this directory instead of an API server
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Name of this node among the Nodes; default: the host name in lower case
    #[arg(long, value_name = "NAME", visible_alias = "hostname-override")]
    pub node_name: Option<String>,
}

impl NodeArgs {
    /// The name of this node.
    pub fn name(&self) -> anyhow::Result<String> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        seaway_daemon::host_name().context("no name for this node; give --node-name")
    }
}

/// Where files are.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// Where the container runtime reads network configs
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Where the container runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Where this node's state of the overlay is written (node.json, lock); files there do not survive a reboot
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Where the plugin keeps its ledger of addresses, as the config list tells it; files there survive a reboot
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
}

impl PlaceArgs {
    /// As the library takes it.
    pub fn to_places(&self) -> Places {
        Places {
            run_dir: self.run_dir.clone(),
            state_dir: self.state_dir.clone(),
            cni_conf_dir: self.cni_conf_dir.clone(),
            cni_bin_dir: self.cni_bin_dir.clone(),
        }
    }
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Where pods of any node are; what goes elsewhere is masqueraded
    #[arg(
        long,
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        value_parser = parse_cidr,
        required = true
    )]
    pub cluster_cidr: Vec<IpNetwork>,
    /// Places outside of the cluster to which pods go with their own addresses
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',')]
    pub no_masquerade_cidr: Vec<IpNetwork>,
    /// Accept what pods send and get in the chain FORWARD, behind the rules that are there: its policy may be to drop
    #[arg(long, value_name = "true|false", default_value_t = true, action = ArgAction::Set)]
    pub iptables_forward_rules: bool,
    /// Send packets to nodes of the same subnet as they are, without VXLAN; the same on every node
    #[arg(long)]
    pub direct_routing: bool,
    /// Who computes the checksums of packets that go into the tunnel
    #[arg(long, value_enum, value_name = "auto|on|off", default_value_t)]
    pub checksum_offload: ChecksumOffload,
    /// Whether the device takes packets together that come out of the tunnel
    #[arg(long, value_enum, value_name = "auto|on|off", default_value_t)]
    pub receive_offload: ReceiveOffload,
    /// VXLAN network identifier, the same on every node
    #[arg(long, value_name = "N", default_value_t = VXLAN_VNI, value_parser = clap::value_parser!(u32).range(0..1 << 24))]
    pub vni: u32,
    /// VXLAN UDP port, the same on every node
    #[arg(long, value_name = "N", default_value_t = VXLAN_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Address of /healthz, /metrics and /status
    #[arg(long, value_name = "IP:PORT", default_value_t = default_admin())]
    pub healthz_bind_address: SocketAddr,
    /// Below what kernel settings are written (sys/net/...); a container without all privileges needs the node's there
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub procfs: PathBuf,
}

impl RunArgs {
    /// As the library takes it.
    pub fn settings(&self) -> Settings {
        Settings {
            cluster_cidrs: self.cluster_cidr.clone(),
            masquerade_exclusions: self.no_masquerade_cidr.clone(),
            forward_rules: self.iptables_forward_rules,
            direct_routing: self.direct_routing,
            checksum_offload: self.checksum_offload,
            receive_offload: self.receive_offload,
            vni: self.vni,
            port: self.port,
        }
    }
}

/// Flags of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Address of the daemon
    #[arg(long, value_name = "IP:PORT", default_value_t = default_admin())]
    pub healthz_bind_address: SocketAddr,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

fn default_admin() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 10260))
}
