//! The command line. Where kube-proxy has a flag of the same meaning, ours has its name.
//!
//! A flag that was not given is `None` here: what it falls back to is decided in [`config`](crate::config), which
//! knows the configuration file as well.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use seaway_daemon::{LogArgs, parse_cidr};
use seaway_model::maglev::DEFAULT_SEED;
use seaway_model::ownership::{BPFFS_ROOT, RUN_DIR};
use seaway_model::{Algorithm, ObjectKey};
use serde::{Deserialize, Serialize};

use crate::config::{LocalMode, NodePortAddress, parse_duration};
use crate::ebpf::{Forwarding, MAX_FLOWS, PodFastPath, XdpMode};
use crate::explain::{Asker, Destination};
use crate::iptables::NatVariant;

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
    Plan(PlanArgs),
    /// Print what should be and what the kernel holds of ours, side by side, in words.
    Dump(DumpArgs),
    /// Say what becomes of a connection, which object and field decides it, and which endpoints are left out and why.
    Explain(ExplainArgs),
    /// Show flows through Services as they begin and end and what is refused or dropped, or list those that there are.
    Flows(FlowsArgs),
    /// Change the mode of the daemon that runs on this node; no connection breaks.
    Switch(SwitchArgs),
    /// Remove everything of ours from this node, in every mode, and verify that it is gone. Needs no API, but with --kubeconfig.
    Cleanup(CleanupArgs),
    /// Say what this kernel and its tools can do, for both modes, and which other proxies are on this node.
    Check(CheckArgs),
}

impl Command {
    /// It changes nothing, and may end at any point.
    pub fn only_shows(&self) -> bool {
        match self {
            Self::Plan(_) | Self::Dump(_) | Self::Explain(_) | Self::Flows(_) | Self::Check(_) => {
                true
            }
            Self::Run(_) | Self::Switch(_) | Self::Cleanup(_) => false,
        }
    }
}

/// How Services get into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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

/// Where things of this node are; enough for `cleanup` and `check`.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
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

/// Flags that say how this node's kernel is used.
#[derive(Debug, Clone, Args)]
pub struct KernelArgs {
    #[command(flatten)]
    pub places: PlaceArgs,

    /// eBPF mode: whether established flows are translated at the driver of uplinks already.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = XdpMode::Off)]
    pub xdp: XdpMode,

    /// eBPF mode: how clients outside are answered by endpoints on other nodes: through this node, which masquerades
    /// them, or by the endpoint's node itself, which sees their address, where that has dsr as well.
    #[arg(long, value_enum, value_name = "snat|dsr", default_value_t = Forwarding::Snat)]
    pub forwarding: Forwarding,

    /// eBPF mode: whether packets between pods go past the node's stack, and so past FORWARD rules of others: auto does it
    /// unless there are any.
    #[arg(long, value_enum, value_name = "auto|on|off", default_value_t = PodFastPath::Auto)]
    pub pod_fast_path: PodFastPath,

    /// eBPF mode: connections and UDP flows that are translated packet by packet and remembered at once; as many sockets of each
    /// protocol, and clients of Services with session affinity. A start with a larger number takes over what is there; a smaller one
    /// counts after `cleanup`.
    #[arg(long, value_name = "N", default_value_t = MAX_FLOWS, value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub max_flows: u32,
}

/// Flags of `cleanup`.
#[derive(Debug, Clone, Args)]
pub struct CleanupArgs {
    #[command(flatten)]
    pub places: PlaceArgs,

    /// After --forwarding dsr: first take back what this node's Node object tells other nodes, so that they send no clients'
    /// packets here any more.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of this node, if it is not the host name.
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
}

/// Flags that say which node this is, where its inputs come from, and how Services are served.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1). As in kube-proxy, other flags that have a field in
    /// it are then ignored, but --hostname-override; here they are named, and --mode counts as well.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How Services get into the kernel; iptables by default.
    #[arg(
        long,
        value_enum,
        env = "SEAWAY_PROXY_MODE",
        visible_alias = "proxy-mode"
    )]
    pub mode: Option<Mode>,

    /// API server and credentials; without it, and without --manifests, ~/.kube/config or else the Pod's service account.
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
    #[arg(long, value_name = "NODE", visible_alias = "node-name")]
    pub hostname_override: Option<String>,

    /// Pod addresses of the whole cluster, one CIDR per family: traffic from elsewhere to a Service is masqueraded.
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',', value_parser = parse_cidr)]
    pub cluster_cidr: Vec<IpNetwork>,

    /// How traffic of pods is told from other traffic; ClusterCIDR by default.
    #[arg(long, value_name = "MODE")]
    pub detect_local_mode: Option<LocalMode>,

    /// With --detect-local-mode BridgeInterface: what comes from this bridge comes from a pod.
    #[arg(long, value_name = "LINK")]
    pub pod_bridge_interface: Option<String>,

    /// With --detect-local-mode InterfaceNamePrefix: what comes from a link with this prefix comes from a pod.
    #[arg(long, value_name = "PREFIX")]
    pub pod_interface_name_prefix: Option<String>,

    /// Masquerade all traffic to cluster IPs.
    #[arg(long)]
    pub masquerade_all: bool,

    /// Addresses of this node at which node ports answer: CIDRs, and `primary` for those of the Node object. All but
    /// loopback by default.
    #[arg(long, value_name = "CIDR|primary[,..]", value_delimiter = ',')]
    pub nodeport_addresses: Vec<NodePortAddress>,

    /// Serve spec.externalIPs within these CIDRs. None by default: whoever may write a Service could otherwise take
    /// over any address (CVE-2020-8554).
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',')]
    pub external_ip_cidrs: Vec<IpNetwork>,

    /// How an endpoint is chosen for packets of Services that are exposed outside and do not say it themselves (annotation
    /// seaway.dev/load-balancer-algorithm): random, or maglev, by which every node picks the same for the same flow.
    #[arg(long, value_name = "random|maglev", value_parser = algorithm, default_value = Algorithm::default().as_str())]
    pub load_balancer_algorithm: Algorithm,

    /// Mixed into what maglev hashes; the same on all nodes of a cluster.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SEED)]
    pub maglev_seed: u32,

    /// Which variant of iptables keeps our nat rules where the node's own is legacy, in mode iptables.
    #[arg(long, value_enum, value_name = "VARIANT", default_value_t)]
    pub iptables_nat_variant: NatVariant,

    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// Flags of the daemon.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub node: NodeArgs,

    /// Address of /healthz and /livez; 0.0.0.0:10256 by default.
    #[arg(long, value_name = "IP:PORT")]
    pub healthz_bind_address: Option<SocketAddr>,

    /// Address of /metrics, /proxyMode and /configz; 127.0.0.1:10249 by default.
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_bind_address: Option<SocketAddr>,

    /// Run although rules, links or processes of another proxy are on this node.
    #[arg(long)]
    pub ignore_other_proxies: bool,

    /// Follow the Pods of this node that have the label seaway.dev/sockets=untranslated, which needs "list" and "watch" of
    /// pods: in mode ebpf their sockets keep the address of the Service, and their packets are translated instead.
    #[arg(long, conflicts_with = "manifests")]
    pub pod_labels: bool,

    /// Only do what needs all privileges (settings of connection tracking), then exit: afterwards the daemon needs few.
    #[arg(long)]
    pub init_only: bool,

    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Flags about the process and connection tracking, as in kube-proxy.
#[derive(Debug, Clone, Default, Args)]
pub struct ProcessArgs {
    /// Written to /proc/self/oom_score_adj; left alone by default.
    #[arg(long, value_name = "-1000..1000", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i16).range(-1000..=1000))]
    pub oom_score_adj: Option<i16>,

    /// Connections to track, for each core of the machine; 0 leaves the limit alone; 32768 by default.
    #[arg(long, value_name = "N")]
    pub conntrack_max_per_core: Option<u32>,

    /// Connections to track at least; 131072 by default.
    #[arg(long, value_name = "N")]
    pub conntrack_min: Option<u32>,

    /// Idle time after which an established TCP connection is forgotten, such as 30s or 1h30m; 0 leaves it alone; 24h by default.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub conntrack_tcp_timeout_established: Option<Duration>,

    /// Idle time after which a half-closed TCP connection is forgotten, written likewise; 0 leaves it alone; 1h by default.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub conntrack_tcp_timeout_close_wait: Option<Duration>,

    /// Let packets outside of the TCP window pass (nf_conntrack_tcp_be_liberal).
    #[arg(long)]
    pub conntrack_tcp_be_liberal: bool,

    /// Idle time after which an unanswered UDP flow is forgotten, written likewise; left alone by default.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub conntrack_udp_timeout: Option<Duration>,

    /// Idle time after which an answered UDP flow is forgotten, written likewise; left alone by default.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub conntrack_udp_timeout_stream: Option<Duration>,
}

/// Flags of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Fail unless this mode can run; `ebpf` shows everything that it needs of the kernel, too.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,

    /// A JSON object; the exit code is the same.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub places: PlaceArgs,
}

/// Flags of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub node: NodeArgs,

    /// In mode iptables: which rules go and which come, chain by chain, instead of what iptables-restore gets.
    #[arg(long)]
    pub diff: bool,

    /// The changes as a JSON object, in both modes.
    #[arg(long, conflicts_with = "diff")]
    pub json: bool,
}

/// Flags of `dump`.
#[derive(Debug, Clone, Args)]
pub struct DumpArgs {
    #[command(flatten)]
    pub node: NodeArgs,

    /// Only what the kernel holds: needs no API.
    #[arg(long)]
    pub actual: bool,

    /// A JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `flows`.
#[derive(Debug, Clone, Args)]
pub struct FlowsArgs {
    /// List the flows that there are, and end. In mode iptables: connection tracking's entries of Services.
    #[arg(long, conflicts_with_all = ["drops", "sample"])]
    pub list: bool,

    /// Only those of one Service.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_service)]
    pub service: Option<ObjectKey>,

    /// Only what is refused or dropped.
    #[arg(long)]
    pub drops: bool,

    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,

    /// Of so many flows one, with its beginning and its end; drops likewise. For busy nodes.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,

    #[command(flatten)]
    pub node: NodeArgs,
}

fn parse_service(text: &str) -> Result<ObjectKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

/// Flags of `switch`.
#[derive(Debug, Clone, Args)]
pub struct SwitchArgs {
    /// The mode to change to, until the daemon is started anew: then the configured one counts.
    #[arg(value_enum, value_name = "MODE")]
    pub mode: Mode,

    /// The run directory of the daemon.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Flags of `explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// Who connects: an IP address, or `node` for a process of this node.
    #[arg(value_name = "SRC")]
    pub source: Asker,

    /// Where to: IP:PORT or NAMESPACE/SERVICE:PORT, with /udp or /sctp behind it if it is not TCP.
    #[arg(value_name = "DST:PORT[/PROTOCOL]")]
    pub destination: Destination,

    /// A JSON object.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub node: NodeArgs,
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::parse(text).ok_or_else(|| "it is random or maglev".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn refusal(args: &[&str]) -> String {
        let args = ["seaway-proxy", "run"].iter().chain(args);
        Cli::try_parse_from(args).unwrap_err().to_string()
    }

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_explains_every_flag_and_shows_those_that_count() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                let name = command.get_name();
                assert!(arg.get_help().is_some(), "{name}: {}", arg.get_id());
            }
        }
        for (command, flag, counts) in [
            ("run", "--max-flows", true),
            ("run", "--bpffs-root", true),
            ("cleanup", "--bpffs-root", true),
            ("cleanup", "--max-flows", false),
            ("cleanup", "--forwarding <", false),
            ("check", "--xdp", false),
        ] {
            let mut all = Cli::command();
            all.build();
            let help = all
                .find_subcommand_mut(command)
                .unwrap()
                .render_long_help()
                .to_string();
            assert_eq!(help.contains(flag), counts, "{command} {flag}");
            let place = |flag| help.find(flag).unwrap();
            assert!(place("--log-format") > place("--run-dir"), "{command}");
        }
    }

    /// Before a cluster is asked, which may take a while.
    #[test]
    fn a_question_that_is_none_is_refused_with_the_command_line() {
        for (args, part) in [
            (["nodes", "default/web:80"], "neither an IP address nor"),
            (["node", "default/web"], "neither IP:PORT"),
        ] {
            let args = ["seaway-proxy", "explain"].iter().chain(&args);
            let refusal = Cli::try_parse_from(args).unwrap_err().to_string();
            assert!(refusal.contains(part), "{refusal}");
        }
    }

    #[test]
    fn two_sources_are_refused() {
        let refusal = refusal(&["--kubeconfig", "a", "--manifests", "b"]);
        assert!(refusal.contains("cannot be used with"), "{refusal}");
    }

    #[test]
    fn an_unknown_word_names_the_known_ones() {
        for (args, known) in [
            (["--mode", "ipvs"], ["iptables", "ebpf"]),
            (["--cluster-cidr", "10.244.0.0"], ["no CIDR", "/16"]),
            (["--detect-local-mode", "x"], ["ClusterCIDR", "NodeCIDR"]),
            (["--nodeport-addresses", "x"], ["primary", "10.0.0.0/8"]),
            (["--oom-score-adj", "-1001"], ["-1000", "1000"]),
            (["--load-balancer-algorithm", "ring"], ["random", "maglev"]),
            (["--conntrack-udp-timeout", "5"], ["30s", "1h30m"]),
        ] {
            let refusal = refusal(&args);
            for word in known {
                assert!(refusal.contains(word), "{word} not in {refusal}");
            }
        }
    }

    #[test]
    fn flags_of_kube_proxy_are_taken_under_their_names() {
        for args in [
            &["--proxy-mode=iptables", "--masquerade-all"][..],
            &[
                "--detect-local-mode=BridgeInterface",
                "--pod-bridge-interface=cni0",
            ],
            &[
                "--nodeport-addresses=primary,10.0.0.0/8",
                "--oom-score-adj=-999",
            ],
            &[
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=24h0m0s",
            ],
            &[
                "--healthz-bind-address=[::]:10256",
                "--metrics-bind-address=127.0.0.1:10249",
            ],
        ] {
            let all = ["seaway-proxy", "run"].iter().chain(args);
            if let Err(error) = Cli::try_parse_from(all) {
                panic!("{args:?}: {error}");
            }
        }
    }
}
