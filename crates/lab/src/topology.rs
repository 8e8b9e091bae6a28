//! What a lab consists of, as a value.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{LabError, LabName};

/// Nodes are numbered into one /24 whose upper addresses are taken.
pub(crate) const MOST_NODES: usize = 100;

/// How the proxy of a node gets Services into the kernel; as `seaway-proxy run --mode` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Iptables,
    Ebpf,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// `n1`, `n2`, ...: the name and the number are one.
    pub name: String,
    pub mode: Mode,
}

/// A lab to bring up.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabConfig {
    pub name: LabName,
    pub nodes: Vec<NodeConfig>,
    /// One, or one of each family. The network between the nodes is IPv4 in any case.
    pub cluster_cidrs: Vec<IpNetwork>,
    pub service_cidr: IpNetwork,
    /// Where the programs of ours are; [`binaries`] unless changed.
    pub binaries: PathBuf,
    /// `RUST_LOG` of the daemons.
    pub log_filter: String,
    /// More flags of every proxy's `run`.
    #[serde(default)]
    pub proxy_flags: Vec<String>,
    /// Told what is being done, one line at a time.
    #[serde(skip)]
    pub progress: Option<Progress>,
}

/// See [`LabConfig::progress`].
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

impl LabConfig {
    /// A lab without nodes.
    pub fn new(name: LabName) -> Result<Self, LabError> {
        Ok(Self {
            name,
            nodes: Vec::new(),
            cluster_cidrs: vec![v4(10, 244)],
            service_cidr: v4(10, 96),
            binaries: binaries()?,
            log_filter: "info".into(),
            proxy_flags: Vec::new(),
            progress: None,
        })
    }

    /// Adds nodes up to this number, in this mode.
    pub fn nodes(mut self, count: usize, mode: Mode) -> Self {
        while self.nodes.len() < count {
            let name = format!("n{}", self.nodes.len() + 1);
            self.nodes.push(NodeConfig { name, mode });
        }
        self
    }

    /// Sets the mode of one node.
    pub fn mode(mut self, node: &str, mode: Mode) -> Result<Self, LabError> {
        let index = self.index(node)?;
        self.nodes[index].mode = mode;
        Ok(self)
    }

    /// Where a node stands among the nodes.
    pub(crate) fn index(&self, node: &str) -> Result<usize, LabError> {
        let known = self.nodes.len();
        let found = self.nodes.iter().position(|n| n.name == node);
        found.ok_or_else(|| {
            LabError::Invalid(format!(
                "there is no node {node}: {known} nodes are called n1 to n{known}"
            ))
        })
    }

    /// Gives pods an IPv6 address besides.
    pub fn dual_stack(mut self) -> Self {
        let base = IpAddr::from([0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0]);
        self.cluster_cidrs.extend(IpNetwork::new(base, 48).ok());
        self
    }

    /// As flags have them.
    pub fn cluster_cidr(&self) -> String {
        let all: Vec<_> = self
            .cluster_cidrs
            .iter()
            .map(IpNetwork::to_string)
            .collect();
        all.join(",")
    }

    /// Sets who is told about progress.
    pub fn progress(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }

    /// Whether it can be brought up, before anything is touched.
    pub fn check(&self) -> Result<(), LabError> {
        if self.nodes.is_empty() || self.nodes.len() > MOST_NODES {
            return Err(LabError::Invalid(format!(
                "a lab has 1 to {MOST_NODES} nodes, not {}",
                self.nodes.len()
            )));
        }
        let (underlay, service) = (underlay_network(), self.service_cidr);
        let clusters = self.cluster_cidrs.iter().flat_map(|cluster| {
            [
                (*cluster, service, "cluster CIDR and service CIDR"),
                (*cluster, underlay, "cluster CIDR and underlay"),
            ]
        });
        let services = (service, underlay, "service CIDR and underlay");
        for (one, other, names) in clusters.chain([services]) {
            if one.contains(other.network()) || other.contains(one.network()) {
                return Err(LabError::Invalid(format!(
                    "{names} overlap: {one} and {other}"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn tell(&self, line: &str) {
        tracing::debug!("{line}");
        if let Some(tell) = &self.progress {
            tell(line);
        }
    }
}

impl NodeConfig {
    /// 1 for `n1`.
    pub fn number(&self) -> u8 {
        self.name
            .strip_prefix('n')
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_default()
    }

    /// Its address on the underlay.
    pub fn address(&self) -> IpAddr {
        underlay(self.number())
    }
}

/// The network between the nodes.
pub(crate) fn underlay_network() -> IpNetwork {
    IpNetwork::new(underlay(0), 24).unwrap_or_else(|_| IpNetwork::from(underlay(0)))
}

/// Address of the API server on the underlay.
pub(crate) fn api_address() -> IpAddr {
    underlay(254)
}

/// Address of the client outside of the cluster.
pub fn outside_address() -> IpAddr {
    underlay(200)
}

fn underlay(host: u8) -> IpAddr {
    IpAddr::from([192, 168, 100, host])
}

fn v4(a: u8, b: u8) -> IpNetwork {
    let base = IpAddr::from(Ipv4Addr::new(a, b, 0, 0));
    IpNetwork::new(base, 16).unwrap_or_else(|_| IpNetwork::from(base))
}

/// `SEAWAY_BIN_DIR`, or the directory of the running program (its parent for a test binary in `deps`).
pub fn binaries() -> Result<PathBuf, LabError> {
    if let Some(given) = std::env::var_os("SEAWAY_BIN_DIR") {
        return Ok(given.into());
    }
    let program = std::env::current_exe().map_err(LabError::file("find", "the running program"))?;
    let mut directory = program.parent().map(PathBuf::from).unwrap_or_default();
    if directory.ends_with("deps") {
        directory.pop();
    }
    Ok(directory)
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Ebpf => "ebpf",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "iptables" => Ok(Self::Iptables),
            "ebpf" => Ok(Self::Ebpf),
            _ => Err(format!("unknown mode {text:?}: iptables or ebpf")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LabConfig {
        LabConfig::new("t".parse().unwrap())
            .unwrap()
            .nodes(3, Mode::Iptables)
    }

    #[test]
    fn nodes_are_numbered_and_modes_set_by_name() {
        let config = config().mode("n2", Mode::Ebpf).unwrap();
        assert_eq!(config.nodes[1].mode, Mode::Ebpf);
        assert_eq!(config.nodes[2].address().to_string(), "192.168.100.3");
        config.check().unwrap();
        let error = config.mode("n4", Mode::Ebpf).err().unwrap().to_string();
        assert_eq!(error, "there is no node n4: 3 nodes are called n1 to n3");
    }

    #[test]
    fn pods_have_one_family_or_two() {
        assert_eq!(config().cluster_cidr(), "10.244.0.0/16");
        let config = config().dual_stack();
        assert_eq!(config.cluster_cidr(), "10.244.0.0/16,fd00:10:244::/48");
        config.check().unwrap();
    }

    #[test]
    fn overlapping_networks_are_refused() {
        let mut config = config().dual_stack();
        config.service_cidr = "10.244.128.0/17".parse().unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(
            error.contains("cluster CIDR and service CIDR overlap"),
            "{error}"
        );
    }

    #[test]
    fn a_lab_needs_nodes() {
        let config = LabConfig::new("t".parse().unwrap()).unwrap();
        assert!(config.check().is_err());
    }
}
