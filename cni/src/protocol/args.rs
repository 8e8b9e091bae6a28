//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;

use super::Error;
use super::env::environment;

/// What a client asks for beside the config. podman sends static addresses this way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Args {
    /// `IP`: exactly these addresses, with or without a prefix; several are separated by commas.
    pub addresses: Vec<IpNetwork>,
    /// `MAC`: this link-layer address for the pod.
    pub mac: Option<MacAddr>,
}

impl Args {
    /// Reads the variable. A key without a value says nothing. An unknown key is an error unless `IgnoreUnknown` is set; keys that Kubernetes runtimes send
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
                "IP" | "MAC" if value.is_empty() => {}
                "IP" => {
                    args.addresses = value
                        .split(',')
                        .map(|text| parse_address(text.trim()))
                        .collect::<Result<_, _>>()?;
                }
                "MAC" => {
                    args.mac = Some(
                        value
                            .parse()
                            .map_err(|e| environment(format!("CNI_ARGS MAC: {e}")))?,
                    );
                }
                // The reference static plugin's twin of the gateway in the config; ours follows from the range.
                "GATEWAY" | "IgnoreUnknown" => {}
                _ if key.starts_with("K8S_POD_") || ignore_unknown => {}
                _ => return Err(environment(format!("unknown CNI_ARGS key {key:?}"))),
            }
        }
        Ok(args)
    }
}

/// `10.0.0.5` or `10.0.0.5/24`.
fn parse_address(text: &str) -> Result<IpNetwork, Error> {
    text.parse()
        .map_err(|e| environment(format!("CNI_ARGS IP {text:?}: {e}")))
}
