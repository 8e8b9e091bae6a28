//! From a configuration to what the commands work with: this node, its source of inputs, its data plane.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use seaway_cluster::direct::{self, Answering};
use seaway_cluster::{NodeScope, Source, Wants, pods};
use seaway_kernel::{Capabilities, Netlink, cgroup, sysctl};
use seaway_model::ownership::SOCKETS_LABEL;
use seaway_model::{DetectLocal, InputEvent, Node, NodeContext, NodeSettings};
use tokio::sync::{mpsc, watch};

use crate::cli::{KernelArgs, Mode, PlaceArgs};
use crate::config::{Config, LocalTraffic, RunConfig};
use crate::ebpf::{self, EbpfConfig, EbpfDataplane, Forwarding, Labelled, MapSizes};
use crate::iptables::{IptablesConfig, IptablesDataplane, NatVariant};
use crate::privileges;

/// How long the one-shot commands wait for their inputs.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// How a source is followed.
pub(super) type Stream = fn(Source, Wants) -> mpsc::Receiver<InputEvent>;

/// As by a daemon, which waits for ever and says so.
pub(super) fn patiently(source: Source, wants: Wants) -> mpsc::Receiver<InputEvent> {
    seaway_cluster::stream_telling(source, wants, seaway_daemon::SILENCE)
}

/// This node, with everything that its Node object had to say resolved.
#[derive(Debug, Clone)]
pub(super) struct ThisNode {
    pub(super) settings: NodeSettings,
    pub(super) detect_local: DetectLocal,
    pub(super) node_port_addresses: Option<Vec<IpNetwork>>,
    /// Sockets of the node find node ports at loopback addresses, too.
    pub(super) loopback_node_ports: bool,
    pub(super) masquerade_all: bool,
    pub(super) nat_variant: NatVariant,
}

impl ThisNode {
    /// Waits for the Node object where a setting needs it; the second part then goes on to tell of it.
    pub(super) async fn resolve(
        config: &Config,
        source: &Source,
        stream: Stream,
    ) -> anyhow::Result<(Self, Option<NodeWatch>)> {
        let name = node_name(config.node_name.as_deref())?;
        let watch = if needs_node(config) {
            Some(NodeWatch::open(config, source, &name, stream).await?)
        } else {
            None
        };
        let node = watch.as_ref().map(|watch| &watch.seen);
        Ok((Self::new(config, name, node), watch))
    }

    /// Without what only the Node object says: enough to look at the kernel.
    pub(super) fn unresolved(config: &Config) -> anyhow::Result<Self> {
        Ok(Self::new(
            config,
            node_name(config.node_name.as_deref())?,
            None,
        ))
    }

    fn new(config: &Config, name: String, node: Option<&Node>) -> Self {
        Self {
            detect_local: match &config.local_traffic {
                LocalTraffic::ClusterCidrs(cidrs) => DetectLocal::ClusterCidr(cidrs.clone()),
                LocalTraffic::NodeCidrs => {
                    DetectLocal::NodeCidr(node.map(|n| n.pod_cidrs.clone()).unwrap_or_default())
                }
                LocalTraffic::Bridge(link) => DetectLocal::BridgeInterface(link.clone()),
                LocalTraffic::InterfacePrefix(prefix) => {
                    DetectLocal::InterfaceNamePrefix(prefix.clone())
                }
            },
            node_port_addresses: config
                .node_port_addresses
                .networks(node.map_or(&[], |node| &node.addresses)),
            loopback_node_ports: config.mode == Mode::Ebpf
                && config.node_port_addresses.networks(&[]).is_none(),
            masquerade_all: config.masquerade_all,
            nat_variant: config.nat_variant,
            settings: NodeSettings {
                external_ip_cidrs: config.external_ip_cidrs.clone(),
                algorithm: config.algorithm,
                carries_maglev: config.mode == Mode::Ebpf,
                ..NodeSettings::new(name)
            },
        }
    }

    /// As the oracle sees it, with the addresses that the node has now.
    pub(super) async fn context(&self) -> anyhow::Result<NodeContext> {
        Ok(NodeContext {
            addresses: own_addresses().await?,
            detect_local: self.detect_local.clone(),
            masquerade_all: self.masquerade_all,
            node_port_addresses: self.node_port_addresses.clone(),
            loopback_node_ports: self.loopback_node_ports,
        })
    }
}

/// Every address of this network namespace but loopback.
pub(super) async fn own_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let addresses = Netlink::new()?.addresses(None).await?;
    let ips = addresses.into_iter().map(|address| address.network.ip());
    Ok(ips.filter(|ip| !ip.is_loopback()).collect())
}

fn needs_node(config: &Config) -> bool {
    config.node_port_addresses.needs_node() || config.local_traffic == LocalTraffic::NodeCidrs
}

/// Follows the Node object after settings were taken from it.
#[derive(Debug)]
pub(super) struct NodeWatch {
    events: mpsc::Receiver<InputEvent>,
    seen: Node,
}

impl NodeWatch {
    async fn open(
        config: &Config,
        source: &Source,
        name: &str,
        stream: Stream,
    ) -> anyhow::Result<Self> {
        let wants = Wants {
            nodes: NodeScope::One(name.to_owned()),
            ..Wants::default()
        };
        let mut events = stream(source.clone(), wants);
        let mut told = None;
        loop {
            let event = events.recv().await;
            let problem = match event.context("the source of the Node ended unexpectedly")? {
                InputEvent::Node(_, Some(node)) => match missing(config, &node) {
                    None => return Ok(Self { events, seen: node }),
                    Some(field) => format!("Node {name} has no {field} yet"),
                },
                InputEvent::Synced if told.is_some() => continue,
                InputEvent::Synced | InputEvent::Node(_, None) => {
                    format!("there is no Node {name} yet (--hostname-override)")
                }
                _ => continue,
            };
            if told.as_ref() != Some(&problem) {
                tracing::warn!("waiting: {problem}");
                told = Some(problem);
            }
        }
    }

    /// Returns once the Node has changed so that settings taken from it hold no more.
    pub(super) async fn changed(mut self, config: &Config) -> String {
        loop {
            let Some(node) = next_node(&mut self.events).await else {
                // The loop that serves notices the same.
                std::future::pending().await
            };
            if config.local_traffic == LocalTraffic::NodeCidrs
                && node.pod_cidrs != self.seen.pod_cidrs
            {
                return "spec.podCIDRs of this Node changed".to_owned();
            }
            if config.node_port_addresses.needs_node() && node.addresses != self.seen.addresses {
                return "status.addresses of this Node changed".to_owned();
            }
        }
    }
}

/// The next state of the Node; `None` at the end of the source.
async fn next_node(events: &mut mpsc::Receiver<InputEvent>) -> Option<Node> {
    loop {
        if let InputEvent::Node(_, Some(node)) = events.recv().await? {
            return Some(node);
        }
    }
}

/// What a setting needs of the Node and it does not have.
fn missing(config: &Config, node: &Node) -> Option<&'static str> {
    if config.local_traffic == LocalTraffic::NodeCidrs && node.pod_cidrs.is_empty() {
        return Some("spec.podCIDRs");
    }
    if config.node_port_addresses.needs_node() && node.addresses.is_empty() {
        return Some("InternalIP in status.addresses");
    }
    None
}

/// Says what was given and is not used.
pub(super) fn tell(notes: &[String]) {
    for note in notes {
        tracing::warn!("configuration: {note}");
    }
}

pub(super) async fn source(config: &Config) -> anyhow::Result<Source> {
    Ok(Source::open(config.kubeconfig.as_deref(), config.manifests.as_deref()).await?)
}

/// Starts following everything that this node needs.
pub(super) fn follow(
    source: Source,
    this: &ThisNode,
    stream: Stream,
) -> mpsc::Receiver<InputEvent> {
    let wants = Wants {
        services: true,
        slices: true,
        nodes: NodeScope::One(this.settings.name.to_string()),
    };
    stream(source, wants)
}

/// The name that was given, or the host's.
pub(super) fn node_name(given: Option<&str>) -> anyhow::Result<String> {
    match given {
        Some(name) => Ok(name.to_owned()),
        None => {
            seaway_daemon::host_name().context("no name for this node; give --hostname-override")
        }
    }
}

pub(super) async fn iptables(this: &ThisNode) -> anyhow::Result<IptablesDataplane> {
    let config = IptablesConfig {
        drop_invalid: !conntrack_is_liberal()?,
        ..rules_of(this)
    };
    let machine = Capabilities::probe().await?;
    has_iptables(&machine)?;
    Ok(IptablesDataplane::new(&config, &machine))
}

/// Addresses of Pods of this node whose label asks to leave their sockets alone; none unless they are to be followed.
pub(super) fn left_alone(run: &RunConfig, source: &Source, this: &ThisNode) -> Labelled {
    match source {
        Source::Kube(server) if run.pod_labels => {
            let label = format!("{SOCKETS_LABEL}=untranslated");
            pods::addresses(server.client.clone(), &this.settings.name, &label)
        }
        Source::Kube(_) | Source::Manifests(_) => watch::channel(BTreeSet::new()).1,
    }
}

/// What other nodes say of whose clients they answer; nothing unless they are to answer any.
pub(super) fn answering(config: &Config, source: &Source) -> watch::Receiver<Option<Answering>> {
    match config.kernel.forwarding {
        Forwarding::Dsr => direct::follow(source.clone()),
        Forwarding::Snat => watch::channel(None).1,
    }
}

/// What the operator wants of rules, in mode iptables and beside mode ebpf.
pub(super) fn rules_of(this: &ThisNode) -> IptablesConfig {
    IptablesConfig {
        detect_local: this.detect_local.clone(),
        node_port_addresses: this.node_port_addresses.clone(),
        masquerade_all: this.masquerade_all,
        nat_variant: this.nat_variant,
        ..IptablesConfig::default()
    }
}

pub(super) fn has_iptables(machine: &Capabilities) -> anyhow::Result<()> {
    anyhow::ensure!(
        machine.iptables.is_some(),
        "iptables is not installed: install it, or use --mode ebpf"
    );
    Ok(())
}

/// Whether this node's connection tracking lets packets outside of the window pass: then those that it calls invalid
/// all the same are none of our business, as in kube-proxy.
fn conntrack_is_liberal() -> anyhow::Result<bool> {
    match sysctl::read("net.netfilter.nf_conntrack_tcp_be_liberal") {
        Ok(value) => Ok(value != "0"),
        // Connection tracking is not loaded yet, and will come with its default.
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn ebpf(config: &Config, this: &ThisNode) -> anyhow::Result<EbpfDataplane> {
    let config = EbpfConfig {
        detect_local: this.detect_local.clone(),
        node_port_addresses: this.node_port_addresses.clone(),
        masquerade_all: this.masquerade_all,
        maglev_seed: config.maglev_seed,
        ..ebpf_config(&config.kernel, &this.settings.name)?
    };
    Ok(EbpfDataplane::new(config)?)
}

/// The one that was given, or the root of the hierarchy.
pub(super) fn cgroup_root(places: &PlaceArgs) -> anyhow::Result<PathBuf> {
    match &places.cgroup_root {
        Some(given) => Ok(given.clone()),
        None => Ok(cgroup::mount_point()
            .context("no cgroup2 hierarchy is mounted: mount one, or give --cgroup-root")?),
    }
}

/// Whether the mode of this node can run here, as far as that is known without the cluster.
pub(super) fn check_mode(config: &Config) -> anyhow::Result<()> {
    match config.mode {
        Mode::Iptables => privileges::check(Mode::Iptables),
        Mode::Ebpf => check_ebpf(&config.kernel.places),
    }
}

/// Whether mode ebpf can run here: privileges, directories, kernel. Where it cannot, an operator has to act.
pub(super) fn check_ebpf(places: &PlaceArgs) -> anyhow::Result<()> {
    privileges::check(Mode::Ebpf)?;
    ebpf::check_places(&cgroup_root(places)?, &places.bpffs_root)?;
    Ok(ebpf::check()?)
}

pub(super) fn ebpf_config(kernel: &KernelArgs, name: &str) -> anyhow::Result<EbpfConfig> {
    let cgroup_root = cgroup_root(&kernel.places)?;
    Ok(EbpfConfig {
        bpffs_root: kernel.places.bpffs_root.clone(),
        xdp: kernel.xdp,
        sizes: MapSizes::for_flows(kernel.max_flows),
        forwarding: kernel.forwarding,
        pod_fast_path: kernel.pod_fast_path,
        ..EbpfConfig::new(name, cgroup_root)
    })
}
