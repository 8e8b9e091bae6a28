//! `seaway-proxy cleanup`.

use std::time::Duration;

use seaway_cluster::{describe, direct};
use seaway_kernel::Capabilities;
use seaway_model::DirectAnswers;

use super::setup;
use crate::cli::{CleanupArgs, Mode, PlaceArgs};
use crate::dataplane::Dataplane;
use crate::ebpf::{EbpfConfig, EbpfDataplane};
use crate::iptables::{IptablesConfig, IptablesDataplane};
use crate::lock::NodeLock;
use crate::privileges;

/// How long the API may take.
const API_LIMIT: Duration = Duration::from_secs(10);

/// Both modes, whichever was in force.
pub async fn cleanup(args: CleanupArgs) -> anyhow::Result<()> {
    // What eBPF mode leaves is in files and links, and needs no more than this to go.
    privileges::check(Mode::Iptables)?;
    let _lock = NodeLock::take(&args.places.run_dir)?;
    let mut failures = Vec::new();
    if let Err(error) = take_back(&args).await {
        failures.push(format!("the annotation of the Node: {error:#}"));
    }
    for mode in [Mode::Iptables, Mode::Ebpf] {
        match cleanup_mode(mode, &args.places).await {
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

/// Has the Node say no more that clients of other nodes are answered here, if we are told where the API is.
async fn take_back(args: &CleanupArgs) -> anyhow::Result<()> {
    let Some(kubeconfig) = &args.kubeconfig else {
        return Ok(());
    };
    let name = setup::node_name(args.hostname_override.as_deref())?;
    let server = seaway_cluster::server(Some(kubeconfig)).await?;
    let said = direct::say(&server.client, &name, DirectAnswers::No);
    let said = seaway_daemon::answer_of(&server.to_string(), Some(API_LIMIT), said).await?;
    said.map_err(|error| anyhow::anyhow!(describe(&error)))
}

/// Removes what one mode left. Returns one line per kind of thing.
pub(super) async fn cleanup_mode(mode: Mode, places: &PlaceArgs) -> anyhow::Result<Vec<String>> {
    Ok(match mode {
        Mode::Iptables => {
            let machine = Capabilities::probe().await?;
            IptablesDataplane::new(&IptablesConfig::default(), &machine)
                .cleanup()
                .await?
        }
        Mode::Ebpf => {
            // Everything is found by its pin: a machine without a cgroup2 hierarchy has nothing to remove.
            let cgroup_root = places.cgroup_root.clone().unwrap_or_default();
            let config = EbpfConfig {
                bpffs_root: places.bpffs_root.clone(),
                ..EbpfConfig::new("", cgroup_root)
            };
            EbpfDataplane::new(config)?.cleanup().await?
        }
    })
}
