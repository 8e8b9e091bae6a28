//! Why a lab could not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;

/// A failure of the lab itself, not of what is tested in it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The topology asks for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// A lab of that name is there, running or left over.
    #[error("lab {name} exists already ({found}); remove it with `seaway lab down --name {name}`")]
    Exists { name: String, found: String },
    /// There is no such lab.
    #[error("there is no lab {0}; `seaway lab list` shows the ones that are there")]
    NotFound(String),
    /// The machine lacks something.
    #[error("{what}: {remedy}")]
    Missing { what: String, remedy: String },
    /// A daemon ended instead of becoming ready.
    #[error("{daemon} stopped by itself; the end of {log}:\n{tail}", log = log.display())]
    Died {
        daemon: String,
        log: PathBuf,
        tail: String,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {} s: {last}", limit.as_secs())]
    TimedOut {
        what: String,
        limit: Duration,
        /// What was seen instead, at last.
        last: String,
    },
    /// After everything was removed, something was still there.
    #[error("lab {name} left behind: {}", left.join(", "))]
    Leftovers { name: String, left: Vec<String> },
    /// A file of the lab.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    /// The kernel said no.
    #[error(transparent)]
    Kernel(#[from] seaway_kernel::Error),
    /// A program said no, or did not answer.
    #[error(transparent)]
    Command(#[from] seaway_kernel::CommandError),
    /// The API server said no, or did not answer.
    #[error("the API server of the lab did not answer as it should")]
    Api(#[from] Box<kube::Error>),
    /// The kubeconfig that `seaway server` wrote is not usable.
    #[error("the kubeconfig of the lab is not usable")]
    Kubeconfig(#[from] Box<kube::config::KubeconfigError>),
}

impl LabError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::File {
            action,
            path,
            cause,
        }
    }
}

impl From<kube::Error> for LabError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}
