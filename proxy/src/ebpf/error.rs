//! What can go wrong, in words that help.

use std::io;
use std::path::{Path, PathBuf};

use crate::dataplane::ApplyError;

/// Why the eBPF data plane cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The kernel lacks something that the programs need.
    #[error(
        "eBPF mode needs {feature} (Linux {since}), which this kernel does not have: `seaway-proxy check --mode ebpf` lists all that it \
         needs, --mode iptables does without"
    )]
    Feature {
        feature: &'static str,
        since: &'static str,
    },
    /// The system call is refused, whatever is asked of it.
    #[error(
        "the kernel lets this process load no program ({cause}): eBPF mode needs its capabilities in the first user namespace, and a \
         seccomp profile that allows bpf(2)"
    )]
    Forbidden { cause: io::Error },
    /// The directory for processes is no cgroup of version 2.
    #[error(
        "{path} is not in a cgroup2 file system; --cgroup-root names the cgroup whose processes are served"
    )]
    NotACgroup { path: PathBuf },
    /// The directory for pins is no BPF file system, and we may not mount one there.
    #[error(
        "{path} is not in a BPF file system (mount -t bpf bpf DIR, and --bpffs-root DIR/seaway)"
    )]
    NotBpffs { path: PathBuf },
    /// A pin with our name whose layout is not ours.
    #[error("the map pinned at {path} has another layout; `seaway-proxy cleanup` removes it")]
    ForeignMap { path: PathBuf },
    /// The ring buffer has one reader at a time.
    #[error("another `seaway-proxy flows` listens on this node; there is one at a time")]
    Listened,
    /// More objects than a map holds.
    #[error("map {name} is full ({entries} entries)")]
    Full { name: &'static str, entries: u32 },
    /// A map operation failed.
    #[error("cannot {operation} map {name}: {cause}")]
    Map {
        operation: &'static str,
        name: &'static str,
        cause: io::Error,
    },
    /// An operation on a file or a kernel object failed.
    #[error("cannot {operation} {object}: {cause}")]
    Io {
        operation: &'static str,
        object: String,
        cause: io::Error,
    },
    /// The programs were not accepted.
    #[error("cannot load {object}: {reason}")]
    Load { object: String, reason: String },
    /// A link does not take the XDP program.
    #[error(
        "cannot attach XDP to {link}: {reason}; --xdp=auto or --xdp=off serves such links at tc"
    )]
    Xdp { link: String, reason: String },
    /// The node's links and addresses could not be read.
    #[error(transparent)]
    Kernel(#[from] seaway_kernel::Error),
}

impl EbpfError {
    pub(super) fn map(operation: &'static str, name: &'static str, cause: io::Error) -> Self {
        Self::Map {
            operation,
            name,
            cause,
        }
    }

    pub(super) fn io(
        operation: &'static str,
        object: impl Into<String>,
        cause: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            operation,
            object: object.into(),
            cause: cause.into(),
        }
    }

    pub(super) fn file(operation: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::io(operation, path.display().to_string(), cause)
    }

    /// With the verifier's complaint, which is at the end of a chain of causes.
    pub(super) fn load(object: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Self::Load {
            object: object.into(),
            reason,
        }
    }
}

impl From<EbpfError> for ApplyError {
    fn from(error: EbpfError) -> Self {
        match &error {
            EbpfError::Feature { feature, since } => Self::Missing {
                what: (*feature).to_owned(),
                remedy: format!(
                    "eBPF mode needs it; use Linux {since} or later, or --mode iptables"
                ),
            },
            EbpfError::NotACgroup { path } => Self::Missing {
                what: format!("a cgroup2 file system at {}", path.display()),
                remedy: "--cgroup-root names the cgroup whose processes are served".to_owned(),
            },
            EbpfError::NotBpffs { path } => Self::Missing {
                what: format!("a BPF file system at {}", path.display()),
                remedy: "mount -t bpf bpf DIR, and --bpffs-root DIR/seaway".to_owned(),
            },
            _ => Self::Failed {
                what: "eBPF".to_owned(),
                reason: error.to_string(),
            },
        }
    }
}
