//! The subcommands: each puts a data plane, a source and the reconcile loop together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use seaway_cluster::{NodeScope, Source, Wants};
use seaway_kernel::{Capabilities, cgroup, sysctl};
use seaway_model::{Change, InputEvent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::cli::{KernelArgs, Mode, NodeArgs, RunArgs};
use crate::dataplane::Dataplane;
use crate::ebpf::{self, EbpfConfig, EbpfDataplane};
use crate::health::Health;
use crate::iptables::{IptablesConfig, IptablesDataplane};
use crate::lock::NodeLock;
use crate::metrics::Metrics;
use crate::privileges;
use crate::reconcile::{Deriver, Ended, Reconciler};

/// How long the one-shot commands wait for their inputs.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// `seaway-proxy run`.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    privileges::check(args.node.mode)?;
    let _lock = NodeLock::take(&args.node.kernel.run_dir)?;
    let health_listener = admin::bind(args.healthz_bind_address, "healthz-bind-address").await?;
    let metrics_listener = admin::bind(args.metrics_bind_address, "metrics-bind-address").await?;
    let shutdown = shutdown_on_signals()?;

    let health = Health::default();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    tokio::spawn(admin::serve_health(health_listener, health.clone()));
    tokio::spawn(admin::serve_metrics(
        metrics_listener,
        Arc::new(registry),
        args.node.mode,
    ));

    let node = &args.node;
    let name = node_name(node)?;
    tracing::info!(node = name, mode = node.mode.as_str(), "starting");
    let ended = match node.mode {
        Mode::Iptables => {
            let dataplane = iptables(node).await?;
            let events = open(node, &name).await?;
            follow(
                Reconciler::new(name, dataplane, health, metrics),
                events,
                shutdown,
                node,
            )
            .await
        }
        Mode::Ebpf => {
            let dataplane = ebpf(node, &name)?;
            let events = open(node, &name).await?;
            follow(
                Reconciler::new(name, dataplane, health, metrics),
                events,
                shutdown,
                node,
            )
            .await
        }
    };
    match ended {
        Ended::Shutdown => {
            tracing::info!("stopping; what is programmed stays in force");
            Ok(())
        }
        Ended::SourceClosed => anyhow::bail!("the source of Services ended unexpectedly"),
    }
}

/// Runs the loop. After the first sync the other mode's state is removed: this mode serves already, so no
/// connection finds neither.
async fn follow<D: Dataplane>(
    mut reconciler: Reconciler<D>,
    events: mpsc::Receiver<InputEvent>,
    shutdown: CancellationToken,
    node: &NodeArgs,
) -> Ended {
    let other = node.mode.other();
    reconciler
        .run(events, shutdown, async || {
            match cleanup_mode(other, &node.kernel).await {
                Ok(removed) => {
                    for line in removed {
                        tracing::info!(
                            mode = other.as_str(),
                            "removed what the other mode had left: {line}"
                        );
                    }
                }
                Err(error) => {
                    tracing::error!("cannot remove what {} mode left: {error:#}", other.as_str());
                }
            }
            tracing::info!("in sync");
            // Outside systemd there is nobody to notify, which is no error.
            _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        })
        .await
}

/// `seaway-proxy plan`.
pub async fn plan(args: NodeArgs) -> anyhow::Result<()> {
    privileges::check(args.mode)?;
    let name = node_name(&args)?;
    match args.mode {
        Mode::Iptables => print_plan(iptables(&args).await?, &args, &name).await,
        Mode::Ebpf => print_plan(ebpf(&args, &name)?, &args, &name).await,
    }
}

async fn print_plan(
    mut dataplane: impl Dataplane,
    args: &NodeArgs,
    name: &str,
) -> anyhow::Result<()> {
    let mut events = open(args, name).await?;
    let mut deriver = Deriver::new(name);
    let listing = async {
        while !deriver.is_synced() {
            let event = events
                .recv()
                .await
                .context("the source of Services ended unexpectedly")?;
            deriver.absorb(event);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIST_TIMEOUT, listing)
        .await
        .with_context(|| {
            format!(
                "no complete list of Services within {} s",
                LIST_TIMEOUT.as_secs()
            )
        })??;
    let (_, diagnostics) = deriver.derive();
    for d in diagnostics {
        eprintln!("warning: {} {}: {}", d.object, d.field, d.consequence);
    }
    dataplane.observe().await?;
    print!("{}", dataplane.plan(deriver.desired(), &Change::Full));
    Ok(())
}

/// `seaway-proxy dump`.
pub async fn dump(args: NodeArgs) -> anyhow::Result<()> {
    privileges::check(args.mode)?;
    let text = match args.mode {
        Mode::Iptables => iptables(&args).await?.dump().await?,
        Mode::Ebpf => ebpf(&args, &node_name(&args)?)?.dump().await?,
    };
    print!("{text}");
    Ok(())
}

/// `seaway-proxy cleanup`: both modes, whichever was in force.
pub async fn cleanup(args: KernelArgs) -> anyhow::Result<()> {
    // What eBPF mode leaves is in files and links, and needs no more than this to go.
    privileges::check(Mode::Iptables)?;
    let _lock = NodeLock::take(&args.run_dir)?;
    let mut failures = Vec::new();
    for mode in [Mode::Iptables, Mode::Ebpf] {
        match cleanup_mode(mode, &args).await {
            Ok(removed) if removed.is_empty() => println!("{}: nothing to remove", mode.as_str()),
            Ok(removed) => {
                for line in removed {
                    println!("{}: removed {line}", mode.as_str());
                }
            }
            Err(error) => failures.push(format!("{}: {error:#}", mode.as_str())),
        }
    }
    anyhow::ensure!(
        failures.is_empty(),
        "cleanup is incomplete: {}",
        failures.join("; ")
    );
    Ok(())
}

async fn cleanup_mode(mode: Mode, kernel: &KernelArgs) -> anyhow::Result<Vec<String>> {
    Ok(match mode {
        Mode::Iptables => {
            let machine = Capabilities::probe().await?;
            IptablesDataplane::new(&IptablesConfig::default(), &machine)
                .cleanup()
                .await?
        }
        Mode::Ebpf => {
            EbpfDataplane::new(ebpf_config(kernel, "")?)?
                .cleanup()
                .await?
        }
    })
}

/// `seaway-proxy check`.
pub async fn check(args: &KernelArgs) -> anyhow::Result<()> {
    let machine = Capabilities::probe().await?;
    let (major, minor) = machine.kernel;
    println!("kernel: {major}.{minor}");
    for (name, program) in [
        ("iptables", &machine.iptables),
        ("ip6tables", &machine.ip6tables),
    ] {
        match program {
            Some(program) => println!("{name}: {} ({})", program.version, program.variant),
            None => println!("{name}: not installed"),
        }
    }
    let iptables = privileges::check(Mode::Iptables).and_then(|()| has_iptables(&machine));
    let ebpf = privileges::check(Mode::Ebpf)
        .and_then(|()| ebpf_config(args, ""))
        .and_then(|_| Ok(ebpf::check()?));
    for (mode, verdict) in [(Mode::Iptables, &iptables), (Mode::Ebpf, &ebpf)] {
        match verdict {
            Ok(()) => println!("mode {}: can run", mode.as_str()),
            Err(error) => println!("mode {}: cannot run: {error:#}", mode.as_str()),
        }
    }
    anyhow::ensure!(
        iptables.is_ok() || ebpf.is_ok(),
        "this node can run neither mode"
    );
    Ok(())
}

async fn iptables(node: &NodeArgs) -> anyhow::Result<IptablesDataplane> {
    let config = IptablesConfig {
        cluster_cidrs: node.cluster_cidr.clone(),
        masquerade_all: node.masquerade_all,
        drop_invalid: !conntrack_is_liberal()?,
        ..IptablesConfig::default()
    };
    let machine = Capabilities::probe().await?;
    has_iptables(&machine)?;
    Ok(IptablesDataplane::new(&config, &machine))
}

fn has_iptables(machine: &Capabilities) -> anyhow::Result<()> {
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

fn ebpf(node: &NodeArgs, name: &str) -> anyhow::Result<EbpfDataplane> {
    let config = EbpfConfig {
        cluster_cidrs: node.cluster_cidr.clone(),
        masquerade_all: node.masquerade_all,
        ..ebpf_config(&node.kernel, name)?
    };
    Ok(EbpfDataplane::new(config)?)
}

fn ebpf_config(kernel: &KernelArgs, name: &str) -> anyhow::Result<EbpfConfig> {
    let cgroup_root = match &kernel.cgroup_root {
        Some(given) => given.clone(),
        None => cgroup::mount_point()
            .context("no cgroup2 hierarchy is mounted: mount one, or give --cgroup-root")?,
    };
    Ok(EbpfConfig {
        bpffs_root: kernel.bpffs_root.clone(),
        ..EbpfConfig::new(name, cgroup_root)
    })
}

async fn open(node: &NodeArgs, name: &str) -> anyhow::Result<mpsc::Receiver<InputEvent>> {
    let source = Source::open(node.kubeconfig.as_deref(), node.manifests.as_deref()).await?;
    let wants = Wants {
        services: true,
        slices: true,
        nodes: NodeScope::One(name.to_owned()),
    };
    Ok(seaway_cluster::stream(source, wants))
}

fn node_name(node: &NodeArgs) -> anyhow::Result<String> {
    match &node.hostname_override {
        Some(name) => Ok(name.clone()),
        None => {
            seaway_daemon::host_name().context("no name for this node; give --hostname-override")
        }
    }
}

/// Cancelled by SIGTERM or SIGINT.
fn shutdown_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = seaway_daemon::stop_signal().context("cannot handle signals")?;
    let shutdown = CancellationToken::new();
    let stopping = shutdown.clone();
    tokio::spawn(async move {
        stop.await;
        stopping.cancel();
    });
    Ok(shutdown)
}
