//! Versions of the protocol.

use std::fmt;

use serde_json::{Value, json};

use super::{Code, Error};

/// A version of the specification that the plugin honours. Ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// All, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As it stands in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads `cniVersion`; a config without one means 0.1.0 (specification, "Network configuration").
    pub fn parse(text: Option<&str>) -> Result<Self, Error> {
        let text = text.unwrap_or("0.1.0");
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| {
                let supported = Self::ALL.map(Self::as_str).join(", ");
                Error::new(
                    Code::IncompatibleVersion,
                    format!("config version {text} is not supported"),
                )
                .details(format!("supported: {supported}"))
            })
    }

    /// Fails unless the verb exists in this version.
    pub fn at_least(self, needed: Self, verb: &str) -> Result<(), Error> {
        if self >= needed {
            return Ok(());
        }
        Err(Error::new(
            Code::IncompatibleVersion,
            format!("config version {self} has no {verb}; it needs {needed}"),
        ))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION. Clients probe with a config of `cniVersion` only, or with no input at all.
pub fn version_answer(input: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(input).ok();
    let asked = asked.as_ref().and_then(|v| v.get("cniVersion")?.as_str());
    json!({
        "cniVersion": asked.unwrap_or(Version::NEWEST.as_str()),
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
}
