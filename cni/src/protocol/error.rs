//! Errors as runtimes read them: a JSON object on standard output (specification, "Error").

use serde_json::{Value, json};

use super::Version;

/// What went wrong, and with which code it is reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
    pub details: Option<String>,
}

/// Error codes: up to 99 the specification's, from 100 on ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion,
    Environment,
    Io,
    Decode,
    InvalidConfig,
    /// As the reference library reports a namespace that cannot be used.
    Namespace,
    TryAgainLater,
    /// STATUS: no ADD can be served.
    NotAvailable,
    /// STATUS: the same, and pods that are there may be cut off.
    Limited,
    /// The kernel refused an operation.
    Kernel,
    /// No address is left.
    Exhausted,
    /// The attachment, or its interface, exists.
    AlreadyAttached,
    /// CHECK found a difference.
    CheckFailed,
    /// Another IPAM plugin did not do what the protocol says.
    Delegate,
    /// What another plugin reported; its number is kept.
    Other(u32),
}

impl Code {
    /// The number.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::Namespace => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::Limited => 51,
            Self::Kernel => 100,
            Self::Exhausted => 101,
            Self::AlreadyAttached => 102,
            Self::CheckFailed => 104,
            Self::Delegate => 105,
            Self::Other(number) => number,
        }
    }
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
        }
    }

    /// Adds what helps to find the cause.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Reads the object that another plugin printed.
    pub fn parse(value: &Value) -> Option<Self> {
        let code = u32::try_from(value.get("code")?.as_u64()?).ok()?;
        let text = |key| value.get(key).and_then(Value::as_str);
        Some(Self {
            code: Code::Other(code),
            message: text("msg").unwrap_or_default().to_owned(),
            details: text("details").filter(|d| !d.is_empty()).map(str::to_owned),
        })
    }

    /// The object for standard output; `version` is the request's as far as it is known.
    pub fn to_json(&self, version: Option<Version>) -> Value {
        let mut object = json!({
            "cniVersion": version.unwrap_or(Version::NEWEST).as_str(),
            "code": self.code.number(),
            "msg": self.message,
        });
        if let Some(details) = &self.details {
            object["details"] = details.as_str().into();
        }
        object
    }
}

impl From<seaway_kernel::Error> for Error {
    fn from(error: seaway_kernel::Error) -> Self {
        Self::new(Code::Kernel, error.to_string())
    }
}
