//! Telling the plugin and the container runtime that this node serves pods.

use std::io;
use std::path::{Path, PathBuf};

use seaway_cni::node::{NodeFile, write_if_changed};
use seaway_cni::{PLUGIN_NAME, install};
use seaway_model::ownership;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    pub cni_conf_dir: PathBuf,
    pub cni_bin_dir: PathBuf,
}

/// A file that could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot write {}: {cause}", path.display())]
    Write { path: PathBuf, cause: io::Error },
    #[error(
        "the plugin is not installed: {} is missing, and so is {} to install it from",
        wanted.display(),
        beside.display()
    )]
    NoPlugin { wanted: PathBuf, beside: PathBuf },
}

impl Places {
    /// The config list that makes a runtime use us.
    pub fn conflist(&self) -> PathBuf {
        self.cni_conf_dir.join(ownership::CONFLIST_FILE)
    }

    /// Puts plugin, node file and config list in place, in this order: the runtime may call the plugin as soon as it
    /// sees the last. Files that are right stay untouched. Answers whether anything was written.
    pub fn publish(&self, node: &NodeFile) -> Result<bool, FileError> {
        let plugin = self.install_plugin()?;
        let path = NodeFile::path(&self.run_dir);
        let written = node
            .write(&self.run_dir)
            .map_err(|cause| FileError::Write { path, cause })?;
        let (_, listed) = install::config(&self.cni_conf_dir, &self.run_dir, &self.state_dir)
            .map_err(|cause| FileError::Write {
                path: self.conflist(),
                cause,
            })?;
        Ok(plugin || written || listed)
    }

    /// Removes the config list, then the node file; absent ones are fine.
    pub fn withdraw(&self) -> io::Result<()> {
        for path in [self.conflist(), NodeFile::path(&self.run_dir)] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Installs the plugin that lies beside this program, if none is installed. An installed one is left alone: it may be
    /// a link, or newer.
    fn install_plugin(&self) -> Result<bool, FileError> {
        let wanted = self.cni_bin_dir.join(PLUGIN_NAME);
        if wanted.exists() {
            return Ok(false);
        }
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned))
            .unwrap_or_default()
            .join(PLUGIN_NAME);
        let Ok(content) = std::fs::read(&beside) else {
            return Err(FileError::NoPlugin { wanted, beside });
        };
        write_if_changed(&wanted, &content, 0o755).map_err(|cause| FileError::Write {
            path: wanted,
            cause,
        })
    }
}
