//! The result of ADD, in the shape of each version, and such a result given back to us.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Code, Error, Version};

/// What ADD made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddResult {
    pub interfaces: Vec<Interface>,
    pub ips: Vec<IpConfig>,
    pub routes: Vec<RouteConfig>,
}

/// A link that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: MacAddr,
    pub mtu: u32,
    /// The namespace's path as the runtime gave it; none on the host side.
    pub sandbox: Option<String>,
}

/// An address of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    pub address: IpNetwork,
    pub gateway: IpAddr,
    /// Index in [`AddResult::interfaces`].
    pub interface: usize,
}

/// A route in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    pub destination: IpNetwork,
    pub gateway: IpAddr,
}

impl AddResult {
    /// The JSON of that version: `ips[].version` exists up to 0.4.0 only, `interfaces[].mtu` from 1.1.0 on.
    pub fn to_json(&self, version: Version) -> Value {
        let interfaces: Vec<_> = self.interfaces.iter().map(|i| i.to_json(version)).collect();
        let ips: Vec<_> = self.ips.iter().map(|ip| ip.to_json(version)).collect();
        let routes: Vec<_> = self
            .routes
            .iter()
            .map(|route| json!({ "dst": route.destination, "gw": route.gateway }))
            .collect();
        json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": routes,
            "dns": {},
        })
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({ "name": self.name, "mac": self.mac });
        if version >= Version::V1_1_0 {
            object["mtu"] = self.mtu.into();
        }
        if let Some(sandbox) = &self.sandbox {
            object["sandbox"] = sandbox.as_str().into();
        }
        object
    }
}

impl IpConfig {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({
            "address": self.address,
            "gateway": self.gateway,
            "interface": self.interface,
        });
        if version <= Version::V0_4_0 {
            let family = if self.address.is_ipv4() { "4" } else { "6" };
            object["version"] = family.into();
        }
        object
    }
}

/// `prevResult`: the final result of the list, so later plugins may have added to ours. Only what CHECK needs is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreviousResult {
    #[serde(default)]
    pub interfaces: Vec<PreviousInterface>,
    #[serde(default)]
    pub ips: Vec<PreviousIp>,
}

/// An entry of `prevResult.interfaces`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreviousInterface {
    pub name: String,
    #[serde(default)]
    pub sandbox: String,
}

/// An entry of `prevResult.ips`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreviousIp {
    pub address: IpNetwork,
}

impl PreviousResult {
    /// Reads it.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        Self::deserialize(value)
            .map_err(|e| Error::new(Code::InvalidConfig, format!("prevResult: {e}")))
    }
}
