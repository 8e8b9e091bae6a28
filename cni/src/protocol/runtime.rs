//! `runtimeConfig`: what runtimes ask for through capabilities (conventions of CNI, "Dynamic plugin specific fields").

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::keys::{lower, unless_empty};
use super::result::nullable;
use super::{Code, Dns, Error};

/// The capabilities; what was not asked for is empty. Others (`cgroupPath`, `aliases`, annotations) say nothing that this
/// plugin needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    #[serde(rename = "portmappings", deserialize_with = "nullable")]
    pub port_mappings: Vec<PortMapping>,
    pub bandwidth: Option<Bandwidth>,
    /// Exactly these addresses.
    #[serde(deserialize_with = "nullable")]
    pub ips: Vec<IpNetwork>,
    #[serde(deserialize_with = "unless_empty")]
    pub mac: Option<MacAddr>,
    /// One address of each inner list.
    #[serde(rename = "ipranges", deserialize_with = "nullable")]
    pub ip_ranges: Vec<Vec<RangeConfig>>,
    pub dns: Option<RuntimeDns>,
}

/// A port of the node that leads to one of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortMapping {
    pub host_port: u16,
    pub pod_port: u16,
    pub protocol: Protocol,
    /// Only at this address of the node; an unspecified one is any of its family, `None` any at all.
    pub host_ip: Option<IpAddr>,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Limits, in bits a second and bits; 0 is none. `ingress` is towards the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    #[serde(rename = "ingressrate")]
    pub ingress_rate: u64,
    #[serde(rename = "ingressburst")]
    pub ingress_burst: u64,
    #[serde(rename = "egressrate")]
    pub egress_rate: u64,
    #[serde(rename = "egressburst")]
    pub egress_burst: u64,
}

/// A range of addresses as host-local's config has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RangeConfig {
    pub subnet: IpNetwork,
    #[serde(default, rename = "rangestart", deserialize_with = "unless_empty")]
    pub start: Option<IpAddr>,
    #[serde(default, rename = "rangeend", deserialize_with = "unless_empty")]
    pub end: Option<IpAddr>,
    #[serde(default, deserialize_with = "unless_empty")]
    pub gateway: Option<IpAddr>,
}

/// The capability says `servers` and `searches` where results say `nameservers` and `search`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct RuntimeDns {
    #[serde(deserialize_with = "nullable")]
    pub servers: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub searches: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub options: Vec<String>,
}

impl From<&RuntimeDns> for Dns {
    fn from(dns: &RuntimeDns) -> Self {
        Self {
            nameservers: dns.servers.clone(),
            domain: String::new(),
            search: dns.searches.clone(),
            options: dns.options.clone(),
        }
    }
}

impl RuntimeConfig {
    /// Reads it, whatever the case of its keys.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        if value.is_null() {
            return Ok(Self::default());
        }
        let mut config: Self = Self::deserialize(lower(value))
            .map_err(|e| Error::new(Code::InvalidConfig, format!("runtimeConfig: {e}")))?;
        // A mapping without a port of the node is one that nobody has asked for.
        config
            .port_mappings
            .retain(|mapping| mapping.host_port != 0);
        Ok(config)
    }
}

impl Bandwidth {
    /// Each limit needs its burst.
    pub fn checked(self) -> Result<Self, Error> {
        for (name, rate, burst) in [
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ] {
            let why = match (rate, burst) {
                (0, 0) => continue,
                (0, _) => format!("{name}Burst without {name}Rate"),
                (_, 0) => format!("{name}Rate without {name}Burst"),
                (rate, _) if rate < 8 => {
                    format!("{name}Rate of {rate} bits a second is less than a byte")
                }
                (_, burst) if burst < 8 => {
                    format!("{name}Burst of {burst} bits is less than a byte")
                }
                (_, burst) if burst / 8 > u64::from(u32::MAX) => {
                    format!("{name}Burst of {burst} bits is more than 4 GiB")
                }
                _ => continue,
            };
            return Err(Error::new(Code::InvalidConfig, format!("bandwidth: {why}")));
        }
        Ok(self)
    }
}

/// As it comes: numbers of any size, text of any case.
#[derive(Deserialize)]
struct RawMapping {
    #[serde(default, rename = "hostport")]
    host: i64,
    #[serde(default, rename = "containerport")]
    container: i64,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostip")]
    ip: String,
}

impl<'de> Deserialize<'de> for PortMapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawMapping::deserialize(deserializer)?;
        raw.checked().map_err(serde::de::Error::custom)
    }
}

impl RawMapping {
    fn checked(self) -> Result<PortMapping, String> {
        let port = |name: &str, number: i64| {
            u16::try_from(number)
                .map_err(|_| format!("portMappings: {name} {number} is not a port (0 to 65535)"))
        };
        let protocol = match self.protocol.to_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => {
                return Err(format!(
                    "portMappings: protocol {:?} is none of tcp, udp, sctp",
                    self.protocol
                ));
            }
        };
        let host_ip = match self.ip.as_str() {
            "" => None,
            text => Some(
                text.parse::<IpAddr>()
                    .map_err(|_| format!("portMappings: hostIP {text:?} is not an address"))?,
            ),
        };
        let (host_port, pod_port) = (
            port("hostPort", self.host)?,
            port("containerPort", self.container)?,
        );
        if host_port != 0 && pod_port == 0 {
            return Err(format!(
                "portMappings: hostPort {host_port} without a containerPort"
            ));
        }
        Ok(PortMapping {
            host_port,
            pod_port,
            protocol,
            host_ip,
        })
    }
}
