//! What a lab is called on the machine. Everything of a lab can be found from its name alone, so that it can be taken
//! away even when nothing else is left of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use seaway_kernel::cgroup;
use seaway_model::ownership::{BPFFS_ROOT, RUN_DIR};
use serde::{Deserialize, Serialize};

use crate::LabError;

/// The name of a lab: lower-case letters and digits only, so that no lab's prefix is that of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

impl LabName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Prefix of all of its network namespaces.
    pub fn netns_prefix(&self) -> String {
        format!("sw-{}-", self.0)
    }

    /// The namespace with the bridge and the API server.
    pub(crate) fn fabric_netns(&self) -> String {
        format!("sw-{}-fabric", self.0)
    }

    /// The namespace outside of the cluster.
    pub fn outside_netns(&self) -> String {
        format!("sw-{}-ext", self.0)
    }

    /// The namespace of a node.
    pub fn node_netns(&self, node: &str) -> String {
        format!("sw-{}-{node}", self.0)
    }

    /// Prefix of the namespaces of a node's pods.
    pub fn pod_netns_prefix(&self, node: &str) -> String {
        format!("sw-{}-{node}-", self.0)
    }

    /// Its files.
    pub fn dir(&self) -> PathBuf {
        labs_dir().join(&self.0)
    }

    /// The cgroup that holds all of its processes.
    pub fn cgroup(&self) -> Result<PathBuf, LabError> {
        Ok(labs_cgroup()?.join(&self.0))
    }

    /// Where the proxy of a node pins.
    pub fn bpffs(&self, node: &str) -> PathBuf {
        PathBuf::from(BPFFS_ROOT).join(format!("{}{node}", self.bpffs_prefix()))
    }

    /// Prefix of its directories below [`BPFFS_ROOT`].
    pub(crate) fn bpffs_prefix(&self) -> String {
        format!("lab-{}-", self.0)
    }
}

/// Where labs keep their files.
pub(crate) fn labs_dir() -> PathBuf {
    PathBuf::from(RUN_DIR).join("lab")
}

/// The parent of the cgroups of all labs.
pub(crate) fn labs_cgroup() -> Result<PathBuf, LabError> {
    Ok(cgroup::mount_point()?.join("seaway-lab"))
}

impl FromStr for LabName {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let fits = (1..=16).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !fits {
            return Err(LabError::Invalid(format!(
                "lab name {text:?}: 1 to 16 lower-case letters and digits"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for LabName {
    type Error = LabError;

    fn try_from(text: String) -> Result<Self, LabError> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_the_prefix_of_another_labs_names() {
        assert!("demo".parse::<LabName>().is_ok());
        for bad in ["", "a-n1", "A", "../x", "abcdefghijklmnopq"] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
        let name: LabName = "a".parse().unwrap();
        assert!(!"sw-ab-n1".starts_with(&name.netns_prefix()));
        assert_eq!(name.pod_netns_prefix("n1"), "sw-a-n1-");
    }
}
