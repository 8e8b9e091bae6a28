//! How traffic of pods is told from other traffic.

use std::str::FromStr;

use ipnetwork::IpNetwork;
use seaway_daemon::parse_cidr;

use super::ConfigError;
use super::file::ConfigFile;

/// `--detect-local-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalMode {
    #[default]
    ClusterCidr,
    NodeCidr,
    BridgeInterface,
    InterfaceNamePrefix,
}

const MODES: [LocalMode; 4] = [
    LocalMode::ClusterCidr,
    LocalMode::NodeCidr,
    LocalMode::BridgeInterface,
    LocalMode::InterfaceNamePrefix,
];

impl LocalMode {
    /// As the flag takes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClusterCidr => "ClusterCIDR",
            Self::NodeCidr => "NodeCIDR",
            Self::BridgeInterface => "BridgeInterface",
            Self::InterfaceNamePrefix => "InterfaceNamePrefix",
        }
    }
}

impl FromStr for LocalMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut modes = MODES.into_iter();
        modes
            .find(|mode| mode.name() == text)
            .ok_or_else(|| format!("expected one of {}", MODES.map(Self::name).join(", ")))
    }
}

/// The mode with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalTraffic {
    /// Pods have addresses of these; none for a family: nobody can tell there.
    ClusterCidrs(Vec<IpNetwork>),
    /// Pods of this node have addresses of the Node's `spec.podCIDRs`.
    NodeCidrs,
    Bridge(String),
    InterfacePrefix(String),
}

/// Longest name of a link, without the end mark (`IFNAMSIZ`).
const LINK_NAME: usize = 15;

impl LocalTraffic {
    pub(super) fn new(
        mode: LocalMode,
        cluster_cidrs: Vec<IpNetwork>,
        bridge: Option<String>,
        prefix: Option<String>,
    ) -> Result<Self, ConfigError> {
        match mode {
            LocalMode::ClusterCidr => {
                one_per_family(&cluster_cidrs)?;
                Ok(Self::ClusterCidrs(cluster_cidrs))
            }
            LocalMode::NodeCidr => Ok(Self::NodeCidrs),
            LocalMode::BridgeInterface => link_name(
                bridge,
                "pod-bridge-interface",
                "detectLocal.bridgeInterface",
            )
            .map(Self::Bridge),
            LocalMode::InterfaceNamePrefix => link_name(
                prefix,
                "pod-interface-name-prefix",
                "detectLocal.interfaceNamePrefix",
            )
            .map(Self::InterfacePrefix),
        }
    }

    pub(super) fn of_file(file: &ConfigFile) -> Result<Self, ConfigError> {
        let setting = |setting, problem| ConfigError::Setting { setting, problem };
        let mode = file
            .text("detectLocalMode")
            .map_or(Ok(LocalMode::default()), str::parse)
            .map_err(|problem| setting("detectLocalMode", problem))?;
        let cidrs = file
            .text("clusterCIDR")
            .map(|text| {
                text.split(',')
                    .map(|cidr| parse_cidr(cidr.trim()))
                    .collect()
            })
            .unwrap_or(Ok(Vec::new()))
            .map_err(|problem| setting("clusterCIDR", problem))?;
        let text = |path| file.text(path).map(str::to_owned);
        Self::new(
            mode,
            cidrs,
            text("detectLocal.bridgeInterface"),
            text("detectLocal.interfaceNamePrefix"),
        )
    }
}

fn one_per_family(cidrs: &[IpNetwork]) -> Result<(), ConfigError> {
    let v4 = cidrs.iter().filter(|cidr| cidr.is_ipv4()).count();
    if v4 > 1 || cidrs.len() - v4 > 1 {
        return Err(ConfigError::Setting {
            setting: "clusterCIDR",
            problem: "more than one CIDR of a family".to_owned(),
        });
    }
    Ok(())
}

fn link_name(
    given: Option<String>,
    flag: &'static str,
    field: &'static str,
) -> Result<String, ConfigError> {
    let problem = |problem| ConfigError::Setting {
        setting: flag,
        problem,
    };
    let Some(name) = given.filter(|name| !name.is_empty()) else {
        return Err(problem(format!(
            "this --detect-local-mode needs it ({field} in a file)"
        )));
    };
    // A "+" at the end would mean "any name with this beginning" to iptables.
    let bad = |c: char| c.is_whitespace() || c == '/' || c == '+';
    if name.len() > LINK_NAME || name.contains(bad) {
        return Err(problem(format!("{name:?} is no name that a link can have")));
    }
    Ok(name)
}
