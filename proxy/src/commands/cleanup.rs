//! `seaway-proxy cleanup`.

use seaway_kernel::Capabilities;

use crate::cli::{KernelArgs, Mode};
use crate::dataplane::Dataplane;
use crate::ebpf::{EbpfConfig, EbpfDataplane};
use crate::iptables::{IptablesConfig, IptablesDataplane};
use crate::lock::NodeLock;
use crate::privileges;

/// Both modes, whichever was in force.
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

/// Removes what one mode left. Returns one line per kind of thing.
pub(super) async fn cleanup_mode(mode: Mode, kernel: &KernelArgs) -> anyhow::Result<Vec<String>> {
    Ok(match mode {
        Mode::Iptables => {
            let machine = Capabilities::probe().await?;
            IptablesDataplane::new(&IptablesConfig::default(), &machine)
                .cleanup()
                .await?
        }
        Mode::Ebpf => {
            // Everything is found by its pin: a machine without a cgroup2 hierarchy has nothing to remove.
            let cgroup_root = kernel.cgroup_root.clone().unwrap_or_default();
            let config = EbpfConfig {
                bpffs_root: kernel.bpffs_root.clone(),
                ..EbpfConfig::new("", cgroup_root)
            };
            EbpfDataplane::new(config)?.cleanup().await?
        }
    })
}
