//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;

use super::Error;
use super::env::environment;

/// What a client asks for beside the config. podman sends static addresses this way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Args {
    /// `IP`: exactly this address.
    pub address: Option<IpAddr>,
    /// `MAC`: this link-layer address for the pod.
    pub mac: Option<MacAddr>,
}

impl Args {
    /// Reads the variable. An unknown key is an error unless `IgnoreUnknown` is set; keys that Kubernetes runtimes send
    /// about the pod are known, and not needed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let pairs = text
            .split(';')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                pair.split_once('=')
                    .ok_or_else(|| environment(format!("invalid CNI_ARGS pair {pair:?}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let ignore_unknown = pairs.iter().any(|(key, value)| {
            *key == "IgnoreUnknown" && matches!(value.to_lowercase().as_str(), "1" | "true")
        });
        let mut args = Self::default();
        for (key, value) in pairs {
            match key {
                "IP" => args.address = Some(parse_address(value)?),
                "MAC" => {
                    args.mac = Some(
                        value
                            .parse()
                            .map_err(|e| environment(format!("CNI_ARGS MAC: {e}")))?,
                    );
                }
                "IgnoreUnknown" => {}
                _ if key.starts_with("K8S_POD_") || ignore_unknown => {}
                _ => return Err(environment(format!("unknown CNI_ARGS key {key:?}"))),
            }
        }
        Ok(args)
    }
}

/// `10.0.0.5` or `10.0.0.5/24`.
fn parse_address(text: &str) -> Result<IpAddr, Error> {
    text.parse::<IpNetwork>()
        .map(|network| network.ip())
        .map_err(|e| environment(format!("CNI_ARGS IP {text:?}: {e}")))
}
