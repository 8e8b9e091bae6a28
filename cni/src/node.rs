//! The node file: how the overlay tells the plugin what this node can serve.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use seaway_model::ownership;
use serde::{Deserialize, Serialize};

use crate::protocol::{Code, Error};

/// `<run dir>/node.json`. The overlay writes it when pods can be served, and removes it when they cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFile {
    pub node_name: String,
    /// The ranges that pods of this node get addresses from, at most one per family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNetwork>,
    /// Where pods of any node may be.
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<IpNetwork>,
    /// The MTU of pod interfaces.
    pub mtu: u32,
    /// The device that leads to other nodes.
    pub vxlan_link: String,
}

impl NodeFile {
    /// Its path.
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join(ownership::NODE_FILE)
    }

    /// Reads it. Its absence is no fault, but a matter of time.
    pub fn read(run_dir: &Path) -> Result<Self, Error> {
        let path = Self::path(run_dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::new(
                    Code::TryAgainLater,
                    format!("the node cannot serve pods yet: {} is missing", path.display()),
                )
                .details("seaway-overlay writes that file once the node has a pod CIDR and its VXLAN device is up; \
                          see `seaway-overlay status`"));
            }
            Err(e) => {
                let message = format!("cannot read {}: {e}", path.display());
                return Err(Error::new(Code::Io, message));
            }
        };
        serde_json::from_str(&text).map_err(|e| {
            let message = format!("{} is not a node file: {e}", path.display());
            Error::new(Code::Decode, message)
        })
    }

    /// Writes it atomically; answers whether it changed.
    pub fn write(&self, run_dir: &Path) -> std::io::Result<bool> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        write_if_changed(&Self::path(run_dir), text.as_bytes(), 0o644)
    }
}

/// Puts a file in place in one step, with its directory; leaves it alone when it has that content. A reader sees the
/// old file or the new one, never a part.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> std::io::Result<bool> {
    use std::os::unix::fs::OpenOptionsExt;

    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| true)
}
