//! The result of ADD, in the shape of each version: written by us, and read where another plugin wrote it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::keys::{lower, unless_empty};
use super::{Code, Error, Version};

/// What ADD made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct AddResult {
    #[serde(deserialize_with = "nullable")]
    pub interfaces: Vec<Interface>,
    #[serde(deserialize_with = "nullable")]
    pub ips: Vec<IpConfig>,
    #[serde(deserialize_with = "nullable")]
    pub routes: Vec<RouteConfig>,
    pub dns: Dns,
}

/// A link that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Interface {
    pub name: String,
    pub mac: String,
    pub mtu: Option<u32>,
    /// The namespace's path as the runtime gave it; empty on the host side.
    pub sandbox: String,
}

/// An address of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IpConfig {
    pub address: IpNetwork,
    #[serde(default, deserialize_with = "unless_empty")]
    pub gateway: Option<IpAddr>,
    /// Index in [`AddResult::interfaces`].
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route in the pod. What is `None` is the kernel's choice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RouteConfig {
    #[serde(rename = "dst")]
    pub destination: IpNetwork,
    /// None: the gateway of the family's address.
    #[serde(default, rename = "gw", deserialize_with = "unless_empty")]
    pub gateway: Option<IpAddr>,
    #[serde(default)]
    pub mtu: Option<u32>,
    #[serde(default)]
    pub advmss: Option<u32>,
    #[serde(default)]
    pub priority: Option<u32>,
    #[serde(default)]
    pub table: Option<u32>,
    #[serde(default)]
    pub scope: Option<u8>,
}

/// How the pod resolves names; written into the pod by the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub options: Vec<String>,
}

impl RouteConfig {
    /// A route with nothing but a destination and maybe a gateway.
    pub fn new(destination: IpNetwork, gateway: Option<IpAddr>) -> Self {
        Self {
            destination,
            gateway,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }

    /// The fields beside destination and gateway exist from 1.1.0 on.
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({ "dst": self.destination });
        if let Some(gateway) = self.gateway {
            object["gw"] = gateway.to_string().into();
        }
        if version >= Version::V1_1_0 {
            let optional = [
                ("mtu", self.mtu),
                ("advmss", self.advmss),
                ("priority", self.priority),
                ("table", self.table),
                ("scope", self.scope.map(u32::from)),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    object[key] = value.into();
                }
            }
        }
        object
    }
}

impl AddResult {
    /// The JSON of that version. Up to 0.2.0 it has no interfaces and one address a family; `ips[].version` exists from
    /// 0.3.0 to 0.4.0, `interfaces[].mtu` from 1.1.0 on.
    pub fn to_json(&self, version: Version) -> Result<Value, Error> {
        if version <= Version::V0_2_0 {
            return self.to_old_json(version);
        }
        let interfaces: Vec<_> = self.interfaces.iter().map(|i| i.to_json(version)).collect();
        let ips: Vec<_> = self.ips.iter().map(|ip| ip.to_json(version)).collect();
        let routes: Vec<_> = self.routes.iter().map(|r| r.to_json(version)).collect();
        let mut object = json!({
            "cniVersion": version.as_str(),
            "ips": ips,
            "dns": self.dns,
        });
        // IPAM has none of the first, and not always one of the second.
        for (key, list) in [("interfaces", interfaces), ("routes", routes)] {
            if !list.is_empty() {
                object[key] = list.into();
            }
        }
        Ok(object)
    }

    fn to_old_json(&self, version: Version) -> Result<Value, Error> {
        let mut object = Map::new();
        object.insert("cniVersion".into(), version.as_str().into());
        for (key, ipv4) in [("ip4", true), ("ip6", false)] {
            let mut ips = self.ips.iter().filter(|ip| ip.address.is_ipv4() == ipv4);
            let Some(ip) = ips.next() else { continue };
            if ips.next().is_some() {
                let message = format!(
                    "a result of version {version} has room for one address a family, and there are more"
                );
                return Err(Error::new(Code::InvalidConfig, message));
            }
            let routes: Vec<_> = self
                .routes
                .iter()
                .filter(|route| route.destination.is_ipv4() == ipv4)
                .map(|route| route.to_json(version))
                .collect();
            let mut family = json!({ "ip": ip.address });
            if let Some(gateway) = ip.gateway {
                family["gateway"] = gateway.to_string().into();
            }
            if !routes.is_empty() {
                family["routes"] = routes.into();
            }
            object.insert(key.into(), family);
        }
        object.insert("dns".into(), json!(self.dns));
        Ok(object.into())
    }

    /// Reads a result of any version.
    pub fn parse(value: &Value) -> Result<Self, String> {
        if !value.is_object() {
            return Err("expected an object".to_owned());
        }
        let value = lower(value);
        let mut result = Self::deserialize(&value).map_err(|e| e.to_string())?;
        for key in ["ip4", "ip6"] {
            let Some(family) = value.get(key).filter(|family| !family.is_null()) else {
                continue;
            };
            let family = OldFamily::deserialize(family).map_err(|e| format!("{key}: {e}"))?;
            result.ips.push(IpConfig {
                address: family.ip,
                gateway: family.gateway,
                interface: None,
            });
            result.routes.extend(family.routes);
        }
        Ok(result)
    }
}

/// `ip4` and `ip6` of versions up to 0.2.0.
#[derive(Deserialize)]
struct OldFamily {
    ip: IpNetwork,
    #[serde(default, deserialize_with = "unless_empty")]
    gateway: Option<IpAddr>,
    #[serde(default, deserialize_with = "nullable")]
    routes: Vec<RouteConfig>,
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({ "name": self.name, "mac": self.mac });
        if let Some(mtu) = self.mtu.filter(|_| version >= Version::V1_1_0) {
            object["mtu"] = mtu.into();
        }
        if !self.sandbox.is_empty() {
            object["sandbox"] = self.sandbox.as_str().into();
        }
        object
    }
}

impl IpConfig {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({ "address": self.address });
        if let Some(gateway) = self.gateway {
            object["gateway"] = gateway.to_string().into();
        }
        if let Some(interface) = self.interface {
            object["interface"] = interface.into();
        }
        if version <= Version::V0_4_0 {
            let family = if self.address.is_ipv4() { "4" } else { "6" };
            object["version"] = family.into();
        }
        object
    }
}

/// `null` is as good as nothing: that is how Go writes an empty list.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
