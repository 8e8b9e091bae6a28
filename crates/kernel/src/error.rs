//! One error for everything that is asked of the kernel: the operation, the object, and what the kernel said.

use std::io;

/// The kernel (or the file system that stands for it) refused something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or a file operation failed.
    #[error("cannot {operation} {object}: {cause}")]
    Io {
        operation: &'static str,
        object: String,
        cause: io::Error,
    },
    /// The kernel answered a netlink request with an error.
    #[error("cannot {operation} {object}: {cause}")]
    Netlink {
        operation: &'static str,
        object: String,
        cause: io::Error,
    },
    /// The netlink socket is gone, or its answer was not what the protocol promises.
    #[error("cannot {operation} {object}: {reason}")]
    Protocol {
        operation: &'static str,
        object: String,
        reason: String,
    },
    /// A value given by the caller cannot be expressed to the kernel.
    #[error("{object} is not valid: {reason}")]
    Invalid { object: String, reason: String },
}

impl Error {
    pub(crate) fn io(
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

    /// The `errno` behind the error, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { cause, .. } | Self::Netlink { cause, .. } => cause.raw_os_error(),
            Self::Protocol { .. } | Self::Invalid { .. } => None,
        }
    }

    /// The object is not there: for a removal this means that there is nothing left to do.
    pub fn is_absent(&self) -> bool {
        use nix::libc::{EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH};
        matches!(self.errno(), Some(ENOENT | ENODEV | ESRCH | EADDRNOTAVAIL))
    }

    /// The kernel does not have that family of addresses.
    pub fn is_unsupported_family(&self) -> bool {
        self.errno() == Some(nix::libc::EAFNOSUPPORT)
    }

    /// It is on a file system that cannot be written to, as `/proc/sys` in a container without all privileges.
    pub fn is_read_only(&self) -> bool {
        self.errno() == Some(nix::libc::EROFS)
    }

    /// Somebody else has that address or port.
    pub fn is_in_use(&self) -> bool {
        self.errno() == Some(nix::libc::EADDRINUSE)
    }

    /// Of looking up the route to an address: nothing leads there.
    pub(crate) fn is_unreachable(&self) -> bool {
        use nix::libc::{EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH};
        // The last two: routes of the kinds prohibit and blackhole.
        matches!(
            self.errno(),
            Some(ENETUNREACH | EHOSTUNREACH | EACCES | EINVAL)
        )
    }

    /// An object of that name or key is there already.
    pub fn is_present(&self) -> bool {
        self.errno() == Some(nix::libc::EEXIST)
    }
}
