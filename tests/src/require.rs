//! Needs are declared, never guessed: a test that cannot run here says why, and is counted.
//!
//! `cargo xtask test` collects the skips in the file that `SEAWAY_SKIPPED_TESTS` names; `cargo xtask ci` fails for
//! every need that its machine should meet.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

/// Something that a test cannot run without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Namespaces, cgroups, rules.
    Root,
    /// A program in `PATH`.
    Program(&'static str),
    /// A file, and the Debian package that has it.
    File(&'static str, &'static str),
    /// kubectl of at least 1.29, here or where set-up puts it.
    Kubectl,
    /// A version of the kernel.
    Kernel(u32, u32),
    /// The binaries of this project.
    Binaries,
}

/// What every test with a lab needs.
pub const LAB: &[Need] = &[
    Need::Root,
    Need::Program("iptables-restore"),
    Need::Program("ip"),
    Need::Kubectl,
    Need::Kernel(6, 6),
    Need::Binaries,
];

/// Whether the calling test can run; if not, it says so and should return.
#[must_use]
pub fn met(needs: &[Need]) -> bool {
    let Some((need, reason)) = needs.iter().find_map(|need| Some((need, need.unmet()?))) else {
        return true;
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(file) = std::env::var_os("SEAWAY_SKIPPED_TESTS") {
        let line = format!("{}\t{test}\t{reason}\n", need.id());
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("cannot record the skip in {file:?}: {error}"));
    }
    false
}

impl Need {
    fn id(self) -> String {
        match self {
            Self::Root => "root".into(),
            Self::Program(name) => format!("program:{name}"),
            Self::File(path, _) => format!("file:{path}"),
            Self::Kubectl => "kubectl".into(),
            Self::Kernel(major, minor) => format!("kernel:{major}.{minor}"),
            Self::Binaries => "binaries".into(),
        }
    }

    /// Why it is not met, if it is not.
    fn unmet(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "needs root".to_owned()),
            Self::Program(name) => (!runs(name, &["--version"]) && !runs(name, &["-V"]))
                .then(|| format!("{name} is not installed: cargo xtask setup")),
            Self::File(path, package) => (!std::path::Path::new(path).exists())
                .then(|| format!("{path} of Debian's {package} is missing: cargo xtask setup")),
            Self::Kubectl => {
                let kubectl = seaway_lab::kubectl_program();
                let works = runs(&kubectl.to_string_lossy(), &["version", "--client"]);
                (!works).then(|| "no kubectl: cargo xtask setup".to_owned())
            }
            Self::Kernel(major, minor) => {
                let running = kernel();
                (running < (major, minor))
                    .then(|| format!("needs Linux {major}.{minor}, this is {running:?}"))
            }
            Self::Binaries => {
                let directory = seaway_lab::topology::binaries().ok()?;
                let proxy = directory.join("seaway-proxy");
                (!proxy.is_file()).then(|| {
                    format!(
                        "{} is not built: cargo build --workspace --bins",
                        proxy.display()
                    )
                })
            }
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|output| output.status.success())
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    }
}
