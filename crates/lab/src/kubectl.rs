//! An unmodified kubectl against a lab.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use seaway_kernel::Command;

use crate::{Finished, Lab, LabError};

/// More than any of its own waits in tests and demo.
const LIMIT: Duration = Duration::from_secs(90);

/// The kubectl to use: the one that set-up put beside the build, or the one in `PATH`.
pub fn kubectl_program() -> PathBuf {
    let beside = crate::topology::binaries()
        .ok()
        .and_then(|directory| Some(directory.parent()?.join("tools/kubectl")));
    match beside {
        Some(path) if path.is_file() => path,
        _ => "kubectl".into(),
    }
}

impl Lab {
    /// Runs kubectl as the administrator, to its end, whatever its exit code.
    pub async fn kubectl<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished, LabError> {
        self.kubectl_with("", args).await
    }

    /// The same with something on its standard input.
    pub async fn kubectl_with<S: AsRef<OsStr>>(
        &self,
        stdin: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished, LabError> {
        Finished::of(self.kubectl_command(args).stdin(stdin)).await
    }

    /// The same, and it must succeed; answers with its standard output.
    pub async fn kubectl_ok<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String, LabError> {
        Ok(self.kubectl_command(args).output().await?.text())
    }

    fn kubectl_command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        Command::new(kubectl_program())
            .env("KUBECONFIG", self.kubeconfig())
            // Discovery is cached by address and port, and another lab may get the same port.
            .env(
                "KUBECACHEDIR",
                self.name().dir().join("scratch/kubectl-cache"),
            )
            .timeout(LIMIT)
            .args(args)
    }
}
