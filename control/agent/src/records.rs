//! What the agent remembers on disk, so that it may die at any time: `<state-dir>/pods/<uid>/`.
//!
//! `pod.json` is the object last seen, `sandbox.json` the namespace and its network, `containers/NAME.json` the
//! process and its past, `logs/NAME/ATTEMPT.log` what it printed. Every write is a rename.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use seaway_kernel::ProcessId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::cni::{NetworkList, PortMapping};
use crate::pod::facts::Exit;

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {cause}", path.display())]
pub struct Error {
    operation: &'static str,
    path: PathBuf,
    cause: io::Error,
}

/// A sandbox, from before its set-up begins until its removal is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRecord {
    /// CNI container id.
    pub id: String,
    /// Name in `/run/netns`; none for a Pod on the node's own network.
    pub netns: Option<String>,
    /// Namespaces and processes of another boot are gone.
    pub boot_id: String,
    pub list: Option<NetworkList>,
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Result of ADD; none while the set-up is under way.
    pub result: Option<Value>,
}

/// A container, from before its first start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    pub attempt: u32,
    /// None while a start is under way, and after the exit.
    pub process: Option<ProcessId>,
    pub started_at: Timestamp,
    pub exit: Option<Exit>,
    pub last_exit: Option<Exit>,
    #[serde(default)]
    pub streak: u32,
}

/// All records of the node.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// The records of one Pod.
#[derive(Debug, Clone)]
pub struct PodDir {
    path: PathBuf,
}

impl Store {
    /// Records below `<state_dir>/pods`, which is created.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let directory = state_dir.join("pods");
        fs::create_dir_all(&directory).map_err(error("create", &directory))?;
        Ok(Self { directory })
    }

    /// Records of the Pod of this uid.
    pub fn pod(&self, uid: &str) -> PodDir {
        PodDir {
            path: self.directory.join(uid),
        }
    }

    /// The Pods with records. One whose object cannot be read is returned with its uid alone: what it left behind
    /// must be found to be removed.
    pub fn pods(&self) -> Result<Vec<Pod>, Error> {
        let mut pods = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(error("list", &self.directory))? {
            let entry = entry.map_err(error("list", &self.directory))?;
            let uid = entry.file_name().to_string_lossy().into_owned();
            let mut pod: Pod = load(&entry.path().join("pod.json")).unwrap_or_default();
            pod.metadata.uid = Some(uid);
            pods.push(pod);
        }
        Ok(pods)
    }
}

impl PodDir {
    /// Keeps the object last seen.
    pub fn save_pod(&self, pod: &Pod) -> Result<(), Error> {
        save(&self.path.join("pod.json"), pod)
    }

    /// The sandbox, if one exists or is half made.
    pub fn sandbox(&self) -> Option<SandboxRecord> {
        load(&self.path.join("sandbox.json"))
    }

    pub fn save_sandbox(&self, sandbox: &SandboxRecord) -> Result<(), Error> {
        save(&self.path.join("sandbox.json"), sandbox)
    }

    pub fn remove_sandbox(&self) -> Result<(), Error> {
        let path = self.path.join("sandbox.json");
        absent_is_fine(fs::remove_file(&path)).map_err(error("remove", &path))
    }

    /// Containers by name.
    pub fn containers(&self) -> BTreeMap<String, ContainerRecord> {
        let Ok(entries) = fs::read_dir(self.path.join("containers")) else {
            return BTreeMap::new();
        };
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = path
                    .file_name()?
                    .to_str()?
                    .strip_suffix(".json")?
                    .to_owned();
                Some((name, load(&path)?))
            })
            .collect()
    }

    pub fn save_container(&self, name: &str, container: &ContainerRecord) -> Result<(), Error> {
        save(
            &self.path.join("containers").join(format!("{name}.json")),
            container,
        )
    }

    /// Where start number `attempt` of a container writes; its directory is created, logs that nobody can ask for any
    /// more (older than `previous`) are removed.
    pub fn prepare_log(&self, container: &str, attempt: u32) -> Result<PathBuf, Error> {
        let path = self.log(container, attempt);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(error("create", directory))?;
        }
        if let Some(old) = attempt.checked_sub(2) {
            let old = self.log(container, old);
            absent_is_fine(fs::remove_file(&old)).map_err(error("remove", &old))?;
        }
        Ok(path)
    }

    /// The log of start number `attempt`.
    pub fn log(&self, container: &str, attempt: u32) -> PathBuf {
        let directory = self.path.join("logs").join(container);
        directory.join(format!("{attempt}.log"))
    }

    /// Forgets the Pod.
    pub fn remove(&self) -> Result<(), Error> {
        absent_is_fine(fs::remove_dir_all(&self.path)).map_err(error("remove", &self.path))
    }
}

fn error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error {
        operation,
        path,
        cause,
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec_pretty(value)?)?;
        fs::rename(&temporary, path)
    };
    write().map_err(error("write", path))
}

/// A record that cannot be read counts as absent: what it described is found by the traces it left (cgroup,
/// namespace) or made anew.
fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return None,
        Err(e) => {
            warn!("cannot read {}: {e}", path.display());
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|e| warn!("ignoring {}: {e}", path.display()))
        .ok()
}
