//! What the operator decides: flags and the configuration file, put together once.
//!
//! With `--config`, kube-proxy ignores every other flag that has a field in the file, but `--hostname-override` and
//! those about logs, and says nothing (`Options.Complete` in `cmd/kube-proxy/app/options.go`). So do we, and say it.
//! `--mode` is ours and is chosen per node, so it goes before a file that many nodes share.

mod duration;
mod effective;
mod file;
mod ignored;
mod local_mode;
mod node_ports;
mod schema;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use seaway_model::Algorithm;

use crate::cli::{KernelArgs, Mode, NodeArgs, RunArgs};
use crate::iptables::NatVariant;

pub(crate) use duration::parse_flag as parse_duration;
pub use file::FileError;
pub use local_mode::{LocalMode, LocalTraffic};
pub use node_ports::{NodePortAddress, NodePortAddresses};

use file::ConfigFile;

/// kube-proxy's ports.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    /// A setting that cannot be used as it stands.
    #[error("{setting}: {problem}")]
    Setting {
        setting: &'static str,
        problem: String,
    },
}

/// How Services of this node are served.
#[derive(Debug, Clone)]
pub struct Config {
    pub mode: Mode,
    pub kubeconfig: Option<PathBuf>,
    pub manifests: Option<PathBuf>,
    /// The host name if `None`.
    pub node_name: Option<String>,
    pub local_traffic: LocalTraffic,
    pub masquerade_all: bool,
    pub node_port_addresses: NodePortAddresses,
    /// External IPs within these are served.
    pub external_ip_cidrs: Vec<IpNetwork>,
    pub algorithm: Algorithm,
    pub maglev_seed: u32,
    pub nat_variant: NatVariant,
    pub kernel: KernelArgs,
    /// What was given and is not used, with what to do about it.
    pub notes: Vec<String>,
    file: ConfigFile,
}

/// What only the daemon needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    pub healthz: SocketAddr,
    pub metrics: SocketAddr,
    pub oom_score_adj: Option<i16>,
    pub conntrack: ConntrackSettings,
    pub ignore_other_proxies: bool,
    /// `--pod-labels`.
    pub pod_labels: bool,
    pub init_only: bool,
    /// As in [`Config::notes`].
    pub notes: Vec<String>,
}

/// What connection tracking is told at start; zero durations and a zero `max_per_core` leave the machine's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConntrackSettings {
    pub max_per_core: u32,
    pub min: u32,
    pub tcp_established: Duration,
    pub tcp_close_wait: Duration,
    pub tcp_be_liberal: bool,
    pub udp: Duration,
    pub udp_stream: Duration,
}

impl Default for ConntrackSettings {
    /// kube-proxy's defaults.
    fn default() -> Self {
        Self {
            max_per_core: 32 * 1024,
            min: 128 * 1024,
            tcp_established: Duration::from_secs(24 * 3600),
            tcp_close_wait: Duration::from_secs(3600),
            tcp_be_liberal: false,
            udp: Duration::ZERO,
            udp_stream: Duration::ZERO,
        }
    }
}

impl Config {
    /// Flags and the file that they name, if any.
    pub fn load(args: NodeArgs) -> Result<Self, ConfigError> {
        match args.config.clone() {
            Some(path) => {
                let text = file::read(&path)?;
                Self::with_file(args, &path, &text)
            }
            None => Self::from_flags(args).map(Self::noted),
        }
    }

    /// With a note on what the mode cannot do.
    fn noted(mut self) -> Self {
        if self.mode == Mode::Iptables && self.algorithm == Algorithm::Maglev {
            self.notes.push(
                "--load-balancer-algorithm maglev has no effect in mode iptables, which chooses at random: use --mode ebpf, \
                 or random"
                    .to_owned(),
            );
        }
        self
    }

    /// Flags and the text of the file at `path`.
    pub fn with_file(args: NodeArgs, path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::from_file(args, ConfigFile::parse(text, path)?).map(Self::noted)
    }

    fn from_flags(args: NodeArgs) -> Result<Self, ConfigError> {
        let local_traffic = LocalTraffic::new(
            args.detect_local_mode.unwrap_or_default(),
            args.cluster_cidr,
            args.pod_bridge_interface,
            args.pod_interface_name_prefix,
        )?;
        Ok(Self {
            mode: args.mode.unwrap_or(Mode::Iptables),
            kubeconfig: args.kubeconfig,
            manifests: args.manifests,
            node_name: node_name(args.hostname_override.as_deref())?,
            local_traffic,
            masquerade_all: args.masquerade_all,
            node_port_addresses: NodePortAddresses::from(args.nodeport_addresses),
            external_ip_cidrs: args.external_ip_cidrs,
            algorithm: args.load_balancer_algorithm,
            maglev_seed: args.maglev_seed,
            nat_variant: args.iptables_nat_variant,
            kernel: args.kernel,
            notes: Vec::new(),
            file: ConfigFile::default(),
        })
    }

    fn from_file(args: NodeArgs, file: ConfigFile) -> Result<Self, ConfigError> {
        let mut notes = file.notes.clone();
        notes.extend(file.gates().map(|(gate, on)| {
            format!(
                "featureGates.{gate} ({on}) has no effect: there are no feature gates; {}",
                match gate {
                    "AllowServiceExternalIPs" =>
                        "external IPs are served within --external-ip-cidrs",
                    _ => "remove it",
                }
            )
        }));
        notes.extend(ignored::notes(ignored::OF_NODE, &args));
        let own_kubeconfig = file.text("clientConnection.kubeconfig").map(PathBuf::from);
        if let (Some(own), Some(given)) = (&own_kubeconfig, &args.kubeconfig)
            && own != given
        {
            notes.push(ignored::note("kubeconfig", "clientConnection.kubeconfig"));
        }
        let name = args.hostname_override.as_deref();
        Ok(Self {
            mode: match args.mode {
                Some(mode) => mode,
                None => mode(file.text("mode"))?,
            },
            // A file that names no API leaves the choice to the flags; with manifests there is none to name.
            kubeconfig: own_kubeconfig
                .filter(|_| args.manifests.is_none())
                .or(args.kubeconfig),
            manifests: args.manifests,
            node_name: node_name(name.or(file.text("hostnameOverride")))?,
            local_traffic: LocalTraffic::of_file(&file)?,
            masquerade_all: file.flag("iptables.masqueradeAll").unwrap_or_default(),
            node_port_addresses: NodePortAddresses::of_file(&file)?,
            external_ip_cidrs: args.external_ip_cidrs,
            algorithm: args.load_balancer_algorithm,
            maglev_seed: args.maglev_seed,
            nat_variant: args.iptables_nat_variant,
            kernel: args.kernel,
            notes,
            file,
        })
    }

    /// Everything that the daemon needs.
    pub fn for_run(args: &RunArgs) -> Result<(Self, RunConfig), ConfigError> {
        let config = Self::load(args.node.clone())?;
        let run = config.run(args)?;
        Ok((config, run))
    }

    /// What only the daemon needs, from where the rest came from.
    pub fn run(&self, args: &RunArgs) -> Result<RunConfig, ConfigError> {
        match args.node.config {
            Some(_) => self.run_from_file(args),
            None => Ok(run_from_flags(args)),
        }
    }

    /// What is in force, as `/configz` shows it.
    pub fn configz(&self, run: &RunConfig) -> serde_json::Value {
        effective::configz(self, run)
    }

    /// Settings in which another configuration differs, but the mode: each by its name in the file.
    pub fn differences(&self, run: &RunConfig, other: &Self, other_run: &RunConfig) -> Vec<String> {
        effective::differences(&self.configz(run), &other.configz(other_run))
    }

    fn run_from_file(&self, args: &RunArgs) -> Result<RunConfig, ConfigError> {
        let file = &self.file;
        let family = self.bind_family()?;
        let default = ConntrackSettings::default();
        let number = |path| file.int(path).and_then(|n| u32::try_from(n).ok());
        Ok(RunConfig {
            healthz: address(
                file,
                "healthzBindAddress",
                unspecified(family),
                HEALTHZ_PORT,
            )?,
            metrics: address(file, "metricsBindAddress", loopback(family), METRICS_PORT)?,
            oom_score_adj: file
                .int("oomScoreAdj")
                .and_then(|score| i16::try_from(score).ok()),
            conntrack: ConntrackSettings {
                max_per_core: number("conntrack.maxPerCore").unwrap_or(default.max_per_core),
                min: number("conntrack.min").unwrap_or(default.min),
                tcp_established: file
                    .span("conntrack.tcpEstablishedTimeout")
                    .unwrap_or(default.tcp_established),
                tcp_close_wait: file
                    .span("conntrack.tcpCloseWaitTimeout")
                    .unwrap_or(default.tcp_close_wait),
                tcp_be_liberal: file.flag("conntrack.tcpBeLiberal").unwrap_or_default(),
                udp: file.span("conntrack.udpTimeout").unwrap_or_default(),
                udp_stream: file.span("conntrack.udpStreamTimeout").unwrap_or_default(),
            },
            ignore_other_proxies: args.ignore_other_proxies,
            pod_labels: args.pod_labels,
            init_only: args.init_only,
            notes: ignored::notes(ignored::OF_RUN, args),
        })
    }

    /// `bindAddress` binds nothing (its name is history): it only chooses the family of the other addresses, and
    /// anything but "all" would override the addresses of the Node.
    fn bind_family(&self) -> Result<IpAddr, ConfigError> {
        match self.file.text("bindAddress") {
            None => Ok(Ipv4Addr::UNSPECIFIED.into()),
            Some(text) => match text.parse::<IpAddr>() {
                Ok(ip) if ip.is_unspecified() => Ok(ip),
                Ok(_) => Err(ConfigError::Setting {
                    setting: "bindAddress",
                    problem: format!(
                        "{text} would override the addresses of the Node, which is not offered: remove it, or use \
                         0.0.0.0 or ::"
                    ),
                }),
                Err(_) => Err(ConfigError::Setting {
                    setting: "bindAddress",
                    problem: format!("{text:?} is not an IP address"),
                }),
            },
        }
    }
}

fn run_from_flags(args: &RunArgs) -> RunConfig {
    let default = ConntrackSettings::default();
    let process = &args.process;
    let v4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    RunConfig {
        healthz: args
            .healthz_bind_address
            .unwrap_or(SocketAddr::new(unspecified(v4), HEALTHZ_PORT)),
        metrics: args
            .metrics_bind_address
            .unwrap_or(SocketAddr::new(loopback(v4), METRICS_PORT)),
        oom_score_adj: process.oom_score_adj,
        conntrack: ConntrackSettings {
            max_per_core: process
                .conntrack_max_per_core
                .unwrap_or(default.max_per_core),
            min: process.conntrack_min.unwrap_or(default.min),
            tcp_established: process
                .conntrack_tcp_timeout_established
                .unwrap_or(default.tcp_established),
            tcp_close_wait: process
                .conntrack_tcp_timeout_close_wait
                .unwrap_or(default.tcp_close_wait),
            tcp_be_liberal: process.conntrack_tcp_be_liberal,
            udp: process.conntrack_udp_timeout.unwrap_or_default(),
            udp_stream: process.conntrack_udp_timeout_stream.unwrap_or_default(),
        },
        ignore_other_proxies: args.ignore_other_proxies,
        pod_labels: args.pod_labels,
        init_only: args.init_only,
        notes: Vec::new(),
    }
}

/// `mode` of the file.
fn mode(text: Option<&str>) -> Result<Mode, ConfigError> {
    match text {
        None | Some("iptables") => Ok(Mode::Iptables),
        Some("ebpf") => Ok(Mode::Ebpf),
        Some(other) => Err(ConfigError::Setting {
            setting: "mode",
            problem: format!(
                "{other:?} is not offered: set iptables or ebpf there, or give --mode, which goes before the file"
            ),
        }),
    }
}

/// In lower case without spaces around it, as kube-proxy reads it.
fn node_name(given: Option<&str>) -> Result<Option<String>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    let name = given.trim().to_lowercase();
    if name.is_empty() {
        return Err(ConfigError::Setting {
            setting: "hostname-override",
            problem: "a name of only spaces".to_owned(),
        });
    }
    Ok(Some(name))
}

/// An address of the file; its port may be missing.
fn address(
    file: &ConfigFile,
    field: &'static str,
    default: IpAddr,
    port: u16,
) -> Result<SocketAddr, ConfigError> {
    let Some(text) = file.text(field) else {
        return Ok(SocketAddr::new(default, port));
    };
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(bare.parse().ok()?, port)))
        .ok_or_else(|| ConfigError::Setting {
            setting: field,
            problem: format!("{text:?} is neither IP:PORT nor IP"),
        })
}

fn unspecified(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn loopback(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
