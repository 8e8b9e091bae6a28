//! What a person calls.

mod cleanup;
mod ipam;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use seaway_model::ownership;

use crate::install;

/// CNI plugin of Seaway.
///
/// Container runtimes call it with CNI_COMMAND set; without, it is a tool for operators. `ipam`, `gc` and
/// `cleanup` must run in the node's network namespace. Called as `ptp` or `host-local` it takes the place of those reference plugins.
#[derive(Debug, Parser)]
#[command(name = "seaway-cni", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put this program into a plugin directory, and optionally a config list beside
    Install(InstallArgs),
    /// Show every address: which pod has it, and what proves that the pod lives
    Ipam(IpamArgs),
    /// Free addresses of pods whose interface and namespace are both gone
    Gc(GcArgs),
    /// Remove everything of the plugin from this node, and verify that it is gone
    Cleanup(CleanupArgs),
}

/// Where to install.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Plugin directory of the container runtime
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Write 10-seaway.conflist here, too (normally seaway-overlay does, once the node can serve)
    #[arg(long, value_name = "DIR")]
    pub conflist: Option<PathBuf>,
    /// Run directory that the config list names
    #[arg(long, value_name = "DIR", default_value = ownership::RUN_DIR)]
    pub run_dir: PathBuf,
    /// State directory that the config list names
    #[arg(long, value_name = "DIR", default_value = ownership::STATE_DIR)]
    pub state_dir: PathBuf,
}

/// Which ledger to show.
#[derive(Debug, Args)]
pub struct IpamArgs {
    /// State directory
    #[arg(long, value_name = "DIR", default_value = ownership::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Only this network; all by default
    #[arg(long)]
    pub network: Option<String>,
    /// One JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What to free.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// State directory
    #[arg(long, value_name = "DIR", default_value = ownership::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Only this network; all by default
    #[arg(long)]
    pub network: Option<String>,
    /// Only say what would be freed
    #[arg(long)]
    pub dry_run: bool,
}

/// What to remove beside what is in the kernel.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// State directory, whose ledgers are removed
    #[arg(long, value_name = "DIR", default_value = ownership::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Remove the program from this plugin directory, too
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Remove 10-seaway.conflist from this directory, too (`seaway-overlay cleanup` does)
    #[arg(long, value_name = "DIR")]
    pub conflist: Option<PathBuf>,
    /// Also while pods are alive: they lose their interfaces
    #[arg(long)]
    pub force: bool,
}

impl Cli {
    /// Runs the subcommand.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Install(args) => run_install(&args),
            Command::Ipam(args) => {
                seaway_kernel::end_with_reader();
                ipam::show(&args)
            }
            Command::Gc(args) => ipam::gc(&args),
            Command::Cleanup(args) => cleanup::run(&args),
        }
    }
}

fn run_install(args: &InstallArgs) -> anyhow::Result<()> {
    let say = |(path, changed): (PathBuf, bool)| {
        let what = if changed {
            "installed"
        } else {
            "is up to date"
        };
        println!("{} {what}", path.display());
    };
    say(install::binary(&args.cni_bin_dir)
        .with_context(|| format!("cannot install into {}", args.cni_bin_dir.display()))?);
    if let Some(conf_dir) = &args.conflist {
        say(install::config(conf_dir, &args.run_dir, &args.state_dir)
            .with_context(|| format!("cannot write into {}", conf_dir.display()))?);
    }
    Ok(())
}
