//! The parameters that come as environment variables.

use super::{Code, Error};

/// What the runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One call of the plugin, checked. What the verb does not need may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub verb: Verb,
    pub container_id: String,
    /// Path of the pod's network namespace.
    pub netns: String,
    pub ifname: String,
    /// `CNI_ARGS` as it came.
    pub args: String,
    /// `CNI_PATH`: where other plugins are.
    pub path: String,
    /// `CNI_NETNS_OVERRIDE`: the pod may share the runtime's namespace.
    pub allow_own_netns: bool,
}

impl Verb {
    /// As `CNI_COMMAND` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

impl Invocation {
    /// Checks the environment; `get` looks a variable up. One error names everything that is missing.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let value = |name: &str| get(name).unwrap_or_default();
        let verb = match value("CNI_COMMAND").as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            other => return Err(environment(format!("unknown CNI_COMMAND: {other}"))),
        };
        let required: &[&str] = match verb {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Verb::Gc => &["CNI_PATH"],
            Verb::Status | Verb::Version => &[],
        };
        let missing: Vec<_> = required
            .iter()
            .copied()
            .filter(|name| value(name).is_empty())
            .collect();
        if !missing.is_empty() {
            return Err(environment(format!(
                "required env variables [{}] missing",
                missing.join(",")
            )));
        }
        let invocation = Self {
            verb,
            container_id: value("CNI_CONTAINERID"),
            netns: value("CNI_NETNS"),
            ifname: value("CNI_IFNAME"),
            args: value("CNI_ARGS"),
            path: value("CNI_PATH"),
            allow_own_netns: matches!(
                value("CNI_NETNS_OVERRIDE").to_lowercase().as_str(),
                "1" | "true"
            ),
        };
        if matches!(verb, Verb::Add | Verb::Check | Verb::Del) {
            check_name("CNI_CONTAINERID", &invocation.container_id)?;
            check_ifname(&invocation.ifname)?;
        }
        Ok(invocation)
    }
}

/// The form of container ids and network names: an alphanumeric, then alphanumerics, `_`, `.`, `-`.
pub(super) fn is_plain_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn check_name(variable: &str, text: &str) -> Result<(), Error> {
    if is_plain_name(text) {
        return Ok(());
    }
    Err(environment(format!(
        "invalid {variable} {text:?}: it must start with an alphanumeric character, and hold only those and _ . -"
    )))
}

/// What the kernel takes as a link's name (`dev_valid_name`).
fn check_ifname(name: &str) -> Result<(), Error> {
    let valid = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid {
        return Ok(());
    }
    Err(environment(format!(
        "invalid CNI_IFNAME {name:?}: 1 to 15 bytes, no slash, colon or white space"
    )))
}

pub(super) fn environment(message: String) -> Error {
    Error::new(Code::Environment, message)
}
