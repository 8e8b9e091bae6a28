//! The network configuration on standard input, and the config list that we ship.

use std::path::{Path, PathBuf};

use seaway_model::ownership;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::env::is_plain_name;
use super::{Code, Error, PreviousResult, Version};
use crate::{NETWORK_NAME, PLUGIN_NAME};

/// One attachment, by the two names that runtimes use for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OwnerKey {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// What GC is told about the attachments that must stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachments {
    /// The key is not there (cnitool sends none): nothing can be concluded.
    Absent,
    /// These, and no others. `null`, as CRI-O sends when it has no pod, means none.
    Valid(Vec<OwnerKey>),
}

/// The configuration of one call, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    pub version: Version,
    /// The network's name; the ledger is kept per name.
    pub name: String,
    /// Where the node file is.
    pub run_dir: PathBuf,
    /// Where the ledger is.
    pub state_dir: PathBuf,
    pub previous: Option<PreviousResult>,
    pub attachments: Attachments,
}

impl NetworkConfig {
    /// Reads and checks standard input.
    pub fn parse(input: &[u8]) -> Result<Self, (Option<Version>, Error)> {
        let decode = |reason: String| Error::new(Code::Decode, reason);
        let object: Map<String, Value> = serde_json::from_slice(input).map_err(|e| {
            let error = decode(format!(
                "the network configuration is not a JSON object: {e}"
            ));
            (None, error)
        })?;
        let version = match object.get("cniVersion") {
            None => Version::parse(None),
            Some(Value::String(text)) => Version::parse(Some(text)),
            Some(other) => Err(decode(format!("cniVersion must be a string, not {other}"))),
        }
        .map_err(|e| (None, e))?;
        Self::of_object(&object, version).map_err(|e| (Some(version), e))
    }

    fn of_object(object: &Map<String, Value>, version: Version) -> Result<Self, Error> {
        let name = text(object, "name")?.unwrap_or_default();
        if !is_plain_name(name) {
            return Err(invalid(format!(
                "network name {name:?} is not valid: it must start with an alphanumeric character, and hold only \
                 those and _ . -"
            )));
        }
        let directory = |key: &str, default: &str| -> Result<PathBuf, Error> {
            let path = PathBuf::from(text(object, key)?.unwrap_or(default));
            if path.is_absolute() {
                return Ok(path);
            }
            Err(invalid(format!("{key} {path:?} must be an absolute path")))
        };
        Ok(Self {
            version,
            name: name.to_owned(),
            run_dir: directory("runDir", ownership::RUN_DIR)?,
            state_dir: directory("stateDir", ownership::STATE_DIR)?,
            previous: match object.get("prevResult") {
                None | Some(Value::Null) => None,
                Some(value) => Some(PreviousResult::parse(value)?),
            },
            attachments: attachments(object)?,
        })
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Error> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(format!("{key} must be a string, not {other}"))),
    }
}

/// Runtimes send the list under both names.
fn attachments(object: &Map<String, Value>) -> Result<Attachments, Error> {
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let Some((key, value)) = keys
        .into_iter()
        .find_map(|key| Some((key, object.get(key)?)))
    else {
        return Ok(Attachments::Absent);
    };
    let valid: Option<Vec<OwnerKey>> =
        serde_json::from_value(value.clone()).map_err(|e| invalid(format!("{key}: {e}")))?;
    Ok(Attachments::Valid(valid.unwrap_or_default()))
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidConfig, message)
}

/// The config list for a runtime's configuration directory. `cniVersion` is one that runtimes of 2022 take;
/// `cniVersions` lets newer ones choose theirs.
pub fn conflist(run_dir: &Path, state_dir: &Path) -> String {
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": NETWORK_NAME,
        "plugins": [{ "type": PLUGIN_NAME, "runDir": run_dir, "stateDir": state_dir }],
    });
    format!("{list:#}\n")
}
