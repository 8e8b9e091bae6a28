//! The `ipam` section, with the keys of the reference host-local and static plugins.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use super::keys::{lower, unless_empty};
use super::{Code, Dns, Error, RangeConfig, RouteConfig};

/// Names under which the ranges of the config are ours to give out; `host-local` is the reference plugin's, whose place
/// we take.
const RANGES: [&str; 2] = ["host-local", crate::PLUGIN_NAME];

/// Who gives out addresses, and from what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipam {
    /// From the node's pod CIDRs.
    Node(Extras),
    /// From these; one address of each inner list.
    Ranges {
        ranges: Vec<Vec<RangeConfig>>,
        /// Where the ledger is, if not in the state directory.
        data_dir: Option<PathBuf>,
        extras: Extras,
    },
    /// Exactly these.
    Static {
        addresses: Vec<StaticAddress>,
        extras: Extras,
    },
    /// Another plugin, by its name.
    Delegate(String),
    /// Nobody: links without addresses.
    None,
}

/// What an address comes with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    pub routes: Vec<RouteConfig>,
    pub dns: Option<Dns>,
    /// A resolver file whose content becomes the result's `dns`.
    pub resolv_conf: Option<PathBuf>,
}

/// An address of the config.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StaticAddress {
    pub address: IpNetwork,
    #[serde(default, deserialize_with = "unless_empty")]
    pub gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    ranges: Option<Vec<Vec<RangeConfig>>>,
    #[serde(default, deserialize_with = "unless_empty")]
    subnet: Option<IpNetwork>,
    #[serde(default, rename = "rangestart", deserialize_with = "unless_empty")]
    start: Option<IpAddr>,
    #[serde(default, rename = "rangeend", deserialize_with = "unless_empty")]
    end: Option<IpAddr>,
    #[serde(default, deserialize_with = "unless_empty")]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Option<Vec<RouteConfig>>,
    #[serde(default)]
    dns: Option<Dns>,
    #[serde(default, rename = "resolvconf")]
    resolv_conf: Option<String>,
    #[serde(default, rename = "datadir")]
    data_dir: Option<String>,
    #[serde(default)]
    addresses: Option<Vec<StaticAddress>>,
}

impl Ipam {
    /// Routes in the pod.
    pub fn routes(&self) -> &[RouteConfig] {
        match self {
            Self::Node(extras) | Self::Ranges { extras, .. } | Self::Static { extras, .. } => {
                &extras.routes
            }
            Self::Delegate(_) | Self::None => &[],
        }
    }

    /// Whether the runtime has to say with each ADD what the addresses are (`ipRanges`): the section does not.
    pub fn awaits_ranges(&self) -> bool {
        matches!(self, Self::Ranges { ranges, .. } if ranges.is_empty())
    }

    /// Reads the section.
    pub fn parse(section: &Value) -> Result<Self, Error> {
        let lowered = lower(section);
        match section {
            Value::Null => return Ok(Self::Node(Extras::default())),
            Value::Object(object) if object.is_empty() => return Ok(Self::None),
            _ => {}
        }
        let raw = Raw::deserialize(lowered).map_err(|e| invalid(format!("ipam: {e}")))?;
        if raw.kind.contains(['/', '\\']) {
            let message = format!("ipam.type {:?} must be a plain file name", raw.kind);
            return Err(invalid(message));
        }
        let path = |text: Option<String>| text.filter(|t| !t.is_empty()).map(PathBuf::from);
        let extras = Extras {
            routes: raw.routes.unwrap_or_default(),
            dns: raw.dns,
            resolv_conf: path(raw.resolv_conf),
        };
        if raw.kind == "static" {
            return Ok(Self::Static {
                addresses: raw.addresses.unwrap_or_default(),
                extras,
            });
        }
        if !RANGES.contains(&raw.kind.as_str()) {
            return match raw.kind.as_str() {
                "" => Err(invalid("ipam.type is missing".to_owned())),
                other => Ok(Self::Delegate(other.to_owned())),
            };
        }
        // The form with one range stands before the list.
        let mut ranges: Vec<_> = raw
            .subnet
            .map(|subnet| {
                vec![RangeConfig {
                    subnet,
                    start: raw.start,
                    end: raw.end,
                    gateway: raw.gateway,
                }]
            })
            .into_iter()
            .collect();
        ranges.extend(raw.ranges.unwrap_or_default());
        if ranges.is_empty() && raw.kind == crate::PLUGIN_NAME {
            return Ok(Self::Node(extras));
        }
        Ok(Self::Ranges {
            ranges,
            data_dir: path(raw.data_dir),
            extras,
        })
    }
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidConfig, message)
}
