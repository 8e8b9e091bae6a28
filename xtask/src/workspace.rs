//! Where things are: the checkout, cargo's target directory, the tools that set-up puts there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use xshell::{Shell, cmd};

/// The checkout that xtask was built from.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Honours `CARGO_TARGET_DIR`.
    pub(crate) target: PathBuf,
    pub(crate) metadata: Metadata,
}

/// How our binaries are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests, lab and demo.
    Dev,
    /// What users run, and what is measured.
    Release,
}

impl Profile {
    /// As `cargo build --profile` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }
}

/// The part of `cargo metadata` that is used here.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) resolve: Resolve,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Dependency>,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
pub(crate) struct DependencyKind {
    /// `None` for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shell = Shell::new()?;
        shell.change_dir(here);
        let json = cmd!(shell, "cargo metadata --format-version 1 --locked")
            .quiet()
            .ignore_stderr()
            .read()
            .or_else(|_| {
                cmd!(shell, "cargo metadata --format-version 1")
                    .quiet()
                    .read()
            })
            .context("cargo metadata")?;
        let metadata: Metadata = serde_json::from_str(&json).context("output of cargo metadata")?;
        Ok(Self {
            root: metadata.workspace_root.clone(),
            target: metadata.target_directory.clone(),
            metadata,
        })
    }

    /// A shell in the root of the checkout, with the tools of set-up first in `PATH`, and our binaries named.
    pub(crate) fn shell(&self) -> Result<Shell> {
        let shell = Shell::new()?;
        shell.change_dir(&self.root);
        shell.set_var("PATH", self.path_with_tools()?);
        shell.set_var("SEAWAY_BIN_DIR", self.binaries(Profile::Dev));
        Ok(shell)
    }

    /// Programs that the system lacks, never installed outside the target directory.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The binaries of a profile.
    pub(crate) fn binaries(&self, profile: Profile) -> PathBuf {
        self.target.join(match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        })
    }

    /// Debian's iptables lives in `/usr/sbin`, which an ordinary `PATH` may lack.
    fn path_with_tools(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let first = std::iter::once(self.tools());
        let last = ["/usr/sbin", "/sbin"].into_iter().map(PathBuf::from);
        let all = first.chain(std::env::split_paths(&path)).chain(last);
        std::env::join_paths(all).context("PATH cannot be extended")
    }
}
