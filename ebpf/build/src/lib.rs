//! Builds the eBPF programs with whatever Rust toolchain of this machine can target BPF. Meant for build scripts, so
//! that plain `cargo build` is all it takes; standard library only, so that it costs nothing.
//!
//! First match wins:
//!
//! 1. `$EBPF_OBJ`: a ready object, for packagers and for machines without a BPF compiler;
//! 2. Debian's compiler with its prebuilt `core` for BPF (packages `rustc-web` and `libstd-rust-web-dev-bpf`);
//! 3. `rustup run nightly`, if that toolchain has the component `rust-src`;
//! 4. an [`Error`] that names both ways out.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod cargo;
mod strip;
mod toolchain;

pub use toolchain::{Toolchain, find as find_toolchain};

/// Environment variable with the path of a ready object.
pub const OBJECT_VARIABLE: &str = "EBPF_OBJ";

/// What to build.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Directory of the crate with the programs: a workspace of its own.
    pub dir: PathBuf,
    /// Name of its binary, which becomes the object.
    pub binary: String,
    /// Cargo's target directory for it.
    pub target_dir: PathBuf,
    /// `bpfel-unknown-none` or `bpfeb-unknown-none`.
    pub target: &'static str,
    /// Architecture of the machine that will load the object, as `cfg(target_arch)` names it.
    pub arch: String,
}

/// Why there is no object.
#[derive(Debug)]
pub enum Error {
    /// Neither compiler is there.
    NoToolchain { target: &'static str },
    /// A compiler is there, the linker is not.
    NoLinker,
    /// The build failed; what the compiler said stands above this message.
    Failed { command: String, status: String },
    /// A file or program could not be used.
    Io { what: String, source: io::Error },
    /// Not called from a build script.
    NotABuildScript { variable: &'static str },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain { target } => write!(
                f,
                "no Rust compiler on this machine can build for {target}. Either of these helps:\n\
                 \x20 Debian 12 and later: apt-get install rustc-web libstd-rust-web-dev-bpf\n\
                 \x20 elsewhere:           rustup toolchain install nightly --component rust-src\n\
                 (`cargo xtask setup` does the first; ${OBJECT_VARIABLE}=FILE takes an object built elsewhere)"
            ),
            Self::NoLinker => write!(
                f,
                "bpf-linker is neither in PATH nor in cargo's bin directory: `cargo xtask setup` installs it, linked \
                 against the LLVM of the compiler that builds the programs"
            ),
            Self::Failed { command, status } => {
                write!(f, "building the eBPF programs failed ({status}): {command}")
            }
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::NotABuildScript { variable } => {
                write!(f, "{variable} is not set: this runs in a build script")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The whole job of a build script: finds or builds the object and copies it to `$OUT_DIR/<binary>.o`.
///
/// # Errors
///
/// Why there is no object, and what to do about it.
pub fn build_script(dir: &Path, binary: &str) -> Result<PathBuf, Error> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let object = out.join(format!("{binary}.o"));
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    if let Some(ready) = env::var_os(OBJECT_VARIABLE) {
        println!("cargo::rerun-if-changed={}", Path::new(&ready).display());
        copy(Path::new(&ready), &object)?;
        return Ok(object);
    }
    for part in [
        "src",
        "Cargo.toml",
        "Cargo.lock",
        "../abi/src",
        "../logic/src",
    ] {
        println!("cargo::rerun-if-changed={}", dir.join(part).display());
    }
    let programs = Programs {
        dir: dir.to_path_buf(),
        binary: binary.to_owned(),
        target_dir: target_dir(&out, &variable("TARGET")?),
        target: match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
            "big" => "bpfeb-unknown-none",
            _ => "bpfel-unknown-none",
        },
        arch: variable("CARGO_CFG_TARGET_ARCH")?,
    };
    copy_without_dwarf(&programs.build()?, &object)?;
    Ok(object)
}

impl Programs {
    /// Builds and returns the path of the object.
    ///
    /// # Errors
    ///
    /// Why there is no object, and what to do about it.
    pub fn build(&self) -> Result<PathBuf, Error> {
        let toolchain = find_toolchain(self.target)?;
        let linker = toolchain::linker().ok_or(Error::NoLinker)?;
        let mut command = cargo::command(self, &toolchain, &linker);
        let status = command.status().map_err(|source| Error::Io {
            what: format!("{command:?}"),
            source,
        })?;
        if !status.success() {
            return Err(Error::Failed {
                command: format!("{command:?}"),
                status: status.to_string(),
            });
        }
        Ok(self
            .target_dir
            .join(self.target)
            .join("release")
            .join(&self.binary))
    }
}

/// `target/ebpf` beside the profile directories of the build that `out` (an `OUT_DIR`) belongs to.
///
/// A target directory of its own, because cargo keeps the outer one locked; outside of `OUT_DIR`, so that debug,
/// release and check builds of the host share one build of the programs.
fn target_dir(out: &Path, target: &str) -> PathBuf {
    // <target directory>[/<target triple>]/<profile>/build/<package>-<hash>/out
    let profile = out
        .ancestors()
        .find(|dir| dir.ends_with("build"))
        .and_then(Path::parent);
    let root = profile
        .and_then(Path::parent)
        .map(|dir| match dir.parent() {
            Some(above) if dir.ends_with(target) => above,
            _ => dir,
        });
    root.unwrap_or(out).join("ebpf")
}

fn variable(name: &'static str) -> Result<String, Error> {
    env::var(name).map_err(|_| Error::NotABuildScript { variable: name })
}

/// What is embedded is what the kernel reads; an object of a form that we do not know stays whole.
fn copy_without_dwarf(from: &Path, to: &Path) -> Result<(), Error> {
    let io = |what: &str, path: &Path| {
        let what = format!("{what} {}", path.display());
        move |source| Error::Io { what, source }
    };
    let object = fs::read(from).map_err(io("reading", from))?;
    let small = strip::without_dwarf(&object).unwrap_or(object);
    fs::write(to, small).map_err(io("writing", to))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(|_| ()).map_err(|source| Error::Io {
        what: format!("copying {} to {}", from.display(), to.display()),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_is_beside_the_profiles() {
        let triple = "x86_64-unknown-linux-gnu";
        for (out, expected) in [
            (
                "/src/target/debug/build/seaway-proxy-0123/out",
                "/src/target/ebpf",
            ),
            (
                "/src/target/x86_64-unknown-linux-gnu/release/build/seaway-proxy-0123/out",
                "/src/target/ebpf",
            ),
            ("/cache/debug/build/seaway-proxy-0123/out", "/cache/ebpf"),
            ("/odd", "/odd/ebpf"),
        ] {
            assert_eq!(
                target_dir(Path::new(out), triple),
                Path::new(expected),
                "{out}"
            );
        }
    }

    #[test]
    fn the_errors_name_the_ways_out() {
        let text = Error::NoToolchain {
            target: "bpfel-unknown-none",
        }
        .to_string();
        assert!(text.contains("apt-get install rustc-web"), "{text}");
        assert!(text.contains("--component rust-src"), "{text}");
        assert!(text.contains("EBPF_OBJ"), "{text}");
    }
}
