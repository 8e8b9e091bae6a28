//! What a lab remembers in its directory.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{LabConfig, LabError, LabName};

/// `lab.json`: written before anything else of the lab exists.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) config: LabConfig,
    /// The API server's port on the loopback of the machine.
    pub(crate) api_port: u16,
    /// Every daemon was in sync once.
    pub(crate) ready: bool,
}

impl Record {
    pub(crate) fn path(name: &LabName) -> PathBuf {
        name.dir().join("lab.json")
    }

    pub(crate) fn load(name: &LabName) -> Result<Self, LabError> {
        read(&Self::path(name))?.ok_or_else(|| LabError::NotFound(name.to_string()))
    }

    pub(crate) fn save(&self) -> Result<(), LabError> {
        write(&Self::path(&self.config.name), self)
    }
}

/// `None` if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LabError> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(LabError::file("read", path))?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| LabError::file("understand", path)(error.into()))
}

/// Whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), LabError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|error| LabError::file("write", path)(error.into()))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).map_err(LabError::file("write", &fresh))?;
    std::fs::rename(&fresh, path).map_err(LabError::file("replace", path))
}
