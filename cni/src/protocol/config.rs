//! The network configuration on standard input, and the config list that we ship.

use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;
use seaway_model::ownership;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::env::is_plain_name;
use super::keys::{find, lower, unless_empty};
use super::{AddResult, Bandwidth, Code, Dns, Error, Ipam, RuntimeConfig, Version};
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

/// The configuration of one call. What every verb needs is read and checked at once; the sections that only some need
/// are read when asked for, so that a DEL is not held up by what its ADD would be refused for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    pub version: Version,
    /// The network's name; the ledger is kept per name.
    pub name: String,
    /// Where the node file is.
    pub run_dir: PathBuf,
    /// Where the ledger is.
    pub state_dir: PathBuf,
    object: Map<String, Value>,
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
        let version = match find(&object, "cniVersion") {
            None => Version::parse(None),
            Some(Value::String(text)) if text.is_empty() => Version::parse(None),
            Some(Value::String(text)) => Version::parse(Some(text)),
            Some(other) => Err(decode(format!("cniVersion must be a string, not {other}"))),
        }
        .map_err(|e| (None, e))?;
        Self::of_object(object, version).map_err(|e| (Some(version), e))
    }

    fn of_object(object: Map<String, Value>, version: Version) -> Result<Self, Error> {
        let name = text(&object, "name")?.unwrap_or_default();
        if !is_plain_name(name) {
            return Err(invalid(format!(
                "network name {name:?} is not valid: it must start with an alphanumeric character, and hold only \
                 those and _ . -"
            )));
        }
        let kind = text(&object, "type")?.unwrap_or_default();
        if kind.contains(['/', '\\']) {
            return Err(invalid(format!("type {kind:?} must be a plain file name")));
        }
        let directory = |key: &str, default: &str| -> Result<PathBuf, Error> {
            let path = PathBuf::from(text(&object, key)?.unwrap_or(default));
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
            object,
        })
    }

    /// `prevResult` as it came, and what it says.
    pub fn previous(&self) -> Result<Option<(&Value, AddResult)>, Error> {
        match find(&self.object, "prevResult") {
            None => Ok(None),
            Some(value) => {
                let result =
                    AddResult::parse(value).map_err(|e| invalid(format!("prevResult: {e}")))?;
                Ok(Some((value, result)))
            }
        }
    }

    /// What GC is told must stay. Runtimes send the list under both names.
    pub fn attachments(&self) -> Result<Attachments, Error> {
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let Some((key, value)) = keys
            .into_iter()
            .find_map(|key| Some((key, self.object.get(key)?)))
        else {
            return Ok(Attachments::Absent);
        };
        let valid: Option<Vec<OwnerKey>> =
            serde_json::from_value(value.clone()).map_err(|e| invalid(format!("{key}: {e}")))?;
        Ok(Attachments::Valid(valid.unwrap_or_default()))
    }

    /// `runtimeConfig`.
    pub fn runtime(&self) -> Result<RuntimeConfig, Error> {
        RuntimeConfig::parse(find(&self.object, "runtimeConfig").unwrap_or(&Value::Null))
    }

    /// `ipam`.
    pub fn ipam(&self) -> Result<Ipam, Error> {
        Ipam::parse(find(&self.object, "ipam").unwrap_or(&Value::Null))
    }

    /// The IPAM plugin that is not built in, if one is named; nothing is said of a section that cannot be read.
    pub fn delegate(&self) -> Option<String> {
        match self.ipam() {
            Ok(Ipam::Delegate(name)) => Some(name),
            _ => None,
        }
    }

    /// `dns`: overrides what comes with the addresses, also when it is empty.
    pub fn dns(&self) -> Result<Option<Dns>, Error> {
        self.section("dns")
    }

    /// Limits of the config itself, as the reference plugin takes them; they win over the runtime's.
    pub fn bandwidth(&self) -> Result<Bandwidth, Error> {
        Bandwidth::deserialize(lower(&Value::Object(self.object.clone())))
            .map_err(|e| invalid(format!("bandwidth: {e}")))
    }

    /// `mtu` of the pod's interface; 0 is not given.
    pub fn mtu(&self) -> Result<Option<u32>, Error> {
        let mtu: Option<u32> = self.section("mtu")?;
        Ok(mtu.filter(|mtu| *mtu != 0))
    }

    /// `ipMasq`: what leaves the node gets the node's address.
    pub fn masquerade(&self) -> Result<bool, Error> {
        Ok(self.section("ipMasq")?.unwrap_or(false))
    }

    /// `args.cni.ips` and `args.cni.mac`.
    pub fn args(&self) -> Result<(Vec<IpNetwork>, Option<MacAddr>), Error> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Inner {
            ips: Vec<IpNetwork>,
            #[serde(deserialize_with = "unless_empty")]
            mac: Option<MacAddr>,
        }
        let args = lower(find(&self.object, "args").unwrap_or(&Value::Null));
        let Some(cni) = args.get("cni").filter(|cni| !cni.is_null()) else {
            return Ok((Vec::new(), None));
        };
        let inner = Inner::deserialize(cni).map_err(|e| invalid(format!("args.cni: {e}")))?;
        Ok((inner.ips, inner.mac))
    }

    fn section<T: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<Option<T>, Error> {
        match find(&self.object, key) {
            None => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|e| invalid(format!("{key}: {e}"))),
        }
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Error> {
    match find(object, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(format!("{key} must be a string, not {other}"))),
    }
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
        "plugins": [{
            "type": PLUGIN_NAME,
            "capabilities": {
                "bandwidth": true,
                "dns": true,
                "ipRanges": true,
                "ips": true,
                "mac": true,
                "portMappings": true,
            },
            "runDir": run_dir,
            "stateDir": state_dir,
        }],
    });
    format!("{list:#}\n")
}
