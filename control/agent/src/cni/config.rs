//! Config lists: reading, choosing a version, flattening into plugin requests. Pure but for [`load`].

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::VERSIONS;

/// A config list as chosen for an attachment; stored with it, since DEL must repeat what ADD did even when the
/// file has changed meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkList {
    pub name: String,
    /// The version in use: the highest that both the list and this runtime know.
    pub version: String,
    #[serde(default)]
    pub disable_check: bool,
    #[serde(default, rename = "disableGC")]
    pub disable_gc: bool,
    pub plugins: Vec<Map<String, Value>>,
}

/// Why there is no usable config list.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The overlay writes one when the node can serve.
    #[error("no CNI config list in {}", .0.display())]
    None(PathBuf),
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

/// What identifies an attachment, and what its plugins are told about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment<'a> {
    pub container_id: &'a str,
    /// Path of the namespace; empty when it is gone.
    pub netns: &'a str,
    pub ifname: &'a str,
    /// `CNI_ARGS`, in order.
    pub args: &'a [(String, String)],
    /// Capability `portMappings`.
    pub port_mappings: &'a [PortMapping],
}

/// One `hostPort` of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: String,
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// The list in force: of the files in `directory`, sorted by name, the first that can be used, as containerd and
/// CRI-O choose.
pub fn load(directory: &Path) -> Result<NetworkList, ConfigError> {
    let read_error = |path: &Path| {
        let path = path.to_owned();
        move |cause| ConfigError::Read { path, cause }
    };
    let mut files: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|e| e == "conflist" || e == "conf" || e == "json")
            })
            .collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(read_error(directory)(e)),
    };
    files.sort();
    let mut first_error = None;
    for path in files {
        let list = fs::read_to_string(&path)
            .map_err(read_error(&path))
            .and_then(|text| {
                NetworkList::parse(&text).map_err(|reason| ConfigError::Invalid {
                    path: path.clone(),
                    reason,
                })
            });
        match list {
            Ok(list) => return Ok(list),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| ConfigError::None(directory.to_owned())))
}

impl NetworkList {
    /// Reads a config list; a single plugin's config counts as a list of one, as runtimes take it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let Value::Object(mut file) = value else {
            return Err("a config list is a JSON object".to_owned());
        };
        let name = file
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if !valid_name(&name) {
            return Err(format!("name {name:?} is not a network name"));
        }
        let version = choose_version(&file)?;
        let flag = |key: &str| match file.get(key) {
            Some(Value::Bool(value)) => *value,
            // libcni takes the strings as well.
            Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        };
        let (disable_check, disable_gc) = (flag("disableCheck"), flag("disableGC"));
        let plugins = match file.remove("plugins") {
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err("plugins is not a list".to_owned()),
            None if file.contains_key("type") => vec![Value::Object(file)],
            None => Vec::new(),
        };
        let plugins = plugins
            .into_iter()
            .enumerate()
            .map(|(i, plugin)| match plugin {
                Value::Object(plugin) => check_type(i, &plugin).map(|()| plugin),
                _ => Err(format!("plugins[{i}] is not an object")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if plugins.is_empty() {
            return Err("plugins: at least one is needed".to_owned());
        }
        Ok(Self {
            name,
            version,
            disable_check,
            disable_gc,
            plugins,
        })
    }

    /// Type of a plugin: the name of its program.
    pub fn plugin_type(&self, index: usize) -> &str {
        self.plugins
            .get(index)
            .and_then(|plugin| plugin.get("type"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether the version in use is at least `wanted`.
    pub fn at_least(&self, wanted: &str) -> bool {
        version_key(&self.version) >= version_key(wanted)
    }

    /// What plugin `index` reads on stdin: its own object, unknown keys included, with name, version, the results so
    /// far, and those capabilities that it declares and we have something for.
    pub fn request(
        &self,
        index: usize,
        prev_result: Option<&Value>,
        attachment: &Attachment<'_>,
    ) -> Value {
        let mut request = self.plugins.get(index).cloned().unwrap_or_default();
        let capabilities = request.remove("capabilities");
        request.insert("cniVersion".to_owned(), self.version.as_str().into());
        request.insert("name".to_owned(), self.name.as_str().into());
        if let Some(result) = prev_result {
            request.insert("prevResult".to_owned(), result.clone());
        }
        let declares = |capability: &str| {
            capabilities
                .as_ref()
                .and_then(|c| c.get(capability))
                .is_some_and(|value| *value == Value::Bool(true))
        };
        if declares("portMappings") && !attachment.port_mappings.is_empty() {
            request.insert(
                "runtimeConfig".to_owned(),
                json!({"portMappings": attachment.port_mappings}),
            );
        }
        Value::Object(request)
    }
}

/// The highest common version out of `cniVersion` and `cniVersions` (spec section 1); none given means 0.1.0.
fn choose_version(file: &Map<String, Value>) -> Result<String, String> {
    let mut offered: Vec<&str> = Vec::new();
    for key in ["cniVersion", "cniVersions"] {
        match file.get(key) {
            None => {}
            Some(Value::String(version)) => offered.push(version),
            Some(Value::Array(versions)) => {
                offered.extend(versions.iter().filter_map(Value::as_str));
            }
            Some(_) => return Err(format!("{key} has the wrong type")),
        }
    }
    if offered.is_empty() {
        offered.push("0.1.0");
    }
    offered
        .iter()
        .filter(|version| VERSIONS.contains(version))
        .max_by_key(|version| version_key(version))
        .map(|version| (*version).to_owned())
        .ok_or_else(|| {
            format!(
                "cniVersion {} is not supported (supported: {})",
                offered.join(", "),
                VERSIONS.join(", ")
            )
        })
}

fn version_key(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or_default())
        .collect()
}

fn valid_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn check_type(index: usize, plugin: &Map<String, Value>) -> Result<(), String> {
    match plugin.get("type").and_then(Value::as_str) {
        Some(name) if !name.is_empty() && !name.contains(['/', '\\']) => Ok(()),
        other => Err(format!(
            "plugins[{index}].type {:?} is not the name of a program",
            other.unwrap_or_default()
        )),
    }
}
